#!lua
-- put_denial: denies something in one organisation, or takes a denial back, and notes who did it, only if the end of the
-- organisation's admin chain is still what the writer read (compare and set).
--
-- KEYS    denial (HASH with `rev` and `doc`), index (SET of the denials' names), admin (LIST of entries, oldest first),
--         policy (HASH, of which `generation` grows with each change; see admit.lua); one hash tag.
-- ARGV    new revision or `-` to take the denial back, its document (empty then), last entry as it was read (empty if there
--         was none), new entry.
-- RETURNS written: {1}. Somebody else was first: {0}; nothing is written.
-- ATOMIC  Redis runs a script alone. There is no change without its entry, and no entry without its change.
-- EXPIRY  None.
-- MEMORY  Some 400 bytes for each denial that stands.
-- ACL     +hset +hincrby +del +sadd +srem +lindex +rpush on the keys given.

local denial, index, admin, policy = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local rev, doc, last, entry = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

if (redis.call('LINDEX', admin, -1) or '') ~= last then return {0} end

-- First, since it alone can fail: a generation that was counted up to its end.
redis.call('HINCRBY', policy, 'generation', 1)
if rev == '-' then
  redis.call('DEL', denial)
  redis.call('SREM', index, denial)
else
  redis.call('HSET', denial, 'rev', rev, 'doc', doc)
  redis.call('SADD', index, denial)
end
redis.call('RPUSH', admin, entry)
return {1}
