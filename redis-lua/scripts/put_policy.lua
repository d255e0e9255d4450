#!lua
-- put_policy: makes a policy the active one of one organisation and notes who did it, only if what was active, and the end of
-- the organisation's admin chain, are still what the writer read (compare and set).
--
-- A single server needs no script for it: there one MULTI moves all organisations of a policy. In a Redis Cluster no
-- transaction spans organisations, so each is moved by itself.
--
-- KEYS    policy (HASH with `rev`, `doc` and `generation`, which grows with each change; see admit.lua), admin (LIST of entries, oldest first); one hash tag.
-- ARGV    revision as it was read or `-` if there was none, new revision, new document,
--         last entry as it was read (empty if there was none), new entry.
-- RETURNS moved: {1}. Somebody else was first: {0}; nothing is written.
-- ATOMIC  Redis runs a script alone. There is no change without its entry, and no entry without its change.
-- EXPIRY  None.
-- MEMORY  Some 600 bytes for each change that was ever made.
-- ACL     +hget +hset +hincrby +lindex +rpush on the keys given.

local policy, admin = KEYS[1], KEYS[2]
local expected, rev, doc, last, entry = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

if (redis.call('HGET', policy, 'rev') or '-') ~= expected then return {0} end
if (redis.call('LINDEX', admin, -1) or '') ~= last then return {0} end
-- First, since it alone can fail: a generation that was counted up to its end.
redis.call('HINCRBY', policy, 'generation', 1)

redis.call('HSET', policy, 'rev', rev, 'doc', doc)
redis.call('RPUSH', admin, entry)
return {1}
