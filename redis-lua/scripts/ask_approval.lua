#!lua
-- ask_approval: notes that a call waits for a person, unless that is known already.
--
-- KEYS    approval (HASH with `rev` and `doc`, so that it can guard an admission: see admit.lua), index (ZSET of
--         what waits or was decided, scored by when it expires in milliseconds); one hash tag.
-- ARGV    name in the index, document, life_ms, the most that may wait at once.
-- RETURNS noted now: {1, 'pending'}. Known already: {0, rev}, which is `pending`, `granted` or `denied`. Too many
--         wait: {0, 'full'}; nothing is written.
-- ATOMIC  Redis runs a script alone.
-- EXPIRY  life_ms after it was noted; asking again does not prolong it.
-- MEMORY  The document for each call that waits, at most as many as may wait.
-- ACL     +time +hget +hset +pexpire +pttl +zadd +zcard +zremrangebyscore on the keys given.

local approval, index = KEYS[1], KEYS[2]
local name, doc, life_ms, most = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

local rev = redis.call('HGET', approval, 'rev')
if rev then return {0, rev} end

local clock = redis.call('TIME')
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
redis.call('ZREMRANGEBYSCORE', index, '-inf', string.format('%.0f', now_ms))
if redis.call('ZCARD', index) >= most then return {0, 'full'} end

redis.call('HSET', approval, 'rev', 'pending', 'doc', doc)
redis.call('PEXPIRE', approval, life_ms)
redis.call('ZADD', index, string.format('%.0f', now_ms + life_ms), name)
if redis.call('PTTL', index) < life_ms then redis.call('PEXPIRE', index, life_ms) end
return {1, 'pending'}
