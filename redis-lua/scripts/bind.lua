#!lua
-- bind: something that a server handed out (a session, a task) belongs to one holder from now on.
--
-- KEYS    binding (HASH with `rev` and `doc`, so that it can guard an admission: see admit.lua).
-- ARGV    holder, life_ms. The holder is what `rev` is compared with.
-- RETURNS bound, now or before, to this holder: {1}. Bound to somebody else: {0}; nothing is written.
-- ATOMIC  Redis runs a script alone.
-- EXPIRY  life_ms after the last time that it was bound.
-- MEMORY  One small hash for each session or task that is alive.
-- ACL     +hget +hset +pexpire on the key given.

local binding, holder, life_ms = KEYS[1], ARGV[1], ARGV[2]

local bound_to = redis.call('HGET', binding, 'rev')
if bound_to and bound_to ~= holder then return {0} end

redis.call('HSET', binding, 'rev', holder, 'doc', '')
redis.call('PEXPIRE', binding, life_ms)
return {1}
