#!lua
-- ask_approval: notes that a call waits for a person, unless that is known already.
--
-- KEYS    approval (HASH with `rev` and `doc`, so that it can guard an admission: see admit.lua; `own` is the name of
--         the third key, for the decision), index (ZSET of
--         what waits or was decided, scored by when it expires in milliseconds), own (the same, of one caller); one hash
--         tag.
-- ARGV    name in the indexes, document, life_ms, the most that may wait at once, the most of one caller.
-- RETURNS noted now: {1, 'pending'}. Known already: {0, rev}, which is `pending`, `granted` or `denied`. Too many
--         wait: {0, 'full'}; too many of this caller: {0, 'caller_full'}; nothing is written.
-- ATOMIC  Redis runs a script alone.
-- EXPIRY  life_ms after it was noted; asking again does not prolong it.
-- MEMORY  The document for each call that waits, at most as many as may wait.
-- ACL     +time +hget +hset +pexpire +pttl +zadd +zcard +zremrangebyscore on the keys given.

local approval, index, own = KEYS[1], KEYS[2], KEYS[3]
local name, doc, life_ms, most, most_own = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])

local rev = redis.call('HGET', approval, 'rev')
if rev then return {0, rev} end

local clock = redis.call('TIME')
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function is_full(set, limit)
  redis.call('ZREMRANGEBYSCORE', set, '-inf', string.format('%.0f', now_ms))
  return redis.call('ZCARD', set) >= limit
end

local function note(set)
  redis.call('ZADD', set, string.format('%.0f', now_ms + life_ms), name)
  if redis.call('PTTL', set) < life_ms then redis.call('PEXPIRE', set, life_ms) end
end

if is_full(own, most_own) then return {0, 'caller_full'} end
if is_full(index, most) then return {0, 'full'} end

redis.call('HSET', approval, 'rev', 'pending', 'doc', doc, 'own', own)
redis.call('PEXPIRE', approval, life_ms)
note(index)
note(own)
return {1, 'pending'}
