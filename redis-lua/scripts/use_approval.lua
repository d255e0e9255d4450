#!lua
-- use_approval: takes a granted approval, so that no other call can use it.
--
-- KEYS    approval (HASH with `rev` and `doc`), index (ZSET), own (ZSET of one caller); one hash tag.
-- ARGV    name in the indexes.
-- RETURNS taken: {1, document}, which names the request that asked. Not granted, or taken by another call: {0};
--         nothing is written.
-- ATOMIC  Redis runs a script alone: of two calls at the same moment one takes it.
-- EXPIRY  None: it only deletes.
-- MEMORY  None.
-- ACL     +hget +pexpire +zrem on the keys given.

local approval, index, own, name = KEYS[1], KEYS[2], KEYS[3], ARGV[1]

if redis.call('HGET', approval, 'rev') ~= 'granted' then return {0} end
local doc = redis.call('HGET', approval, 'doc')
redis.call('PEXPIRE', approval, 0) -- gone at once, without a right to DEL
redis.call('ZREM', index, name)
redis.call('ZREM', own, name)
return {1, doc}
