#!lua
-- put_record: writes a key record and the entry that tells who changed it, only if the record is still the
-- revision, and the organisation's admin chain still ends with the entry, that the writer read (compare and set).
--
-- KEYS    record (HASH with `rev` and `doc`), index (SET of the organisation's record ids), admin (LIST of
--         entries, oldest first), policy (HASH, of which `generation` grows with each change; see admit.lua); all
--         with one hash tag.
-- ARGV    expected revision or `-` for a record that must not exist yet, new document, record id,
--         last entry as it was read (empty if there was none), new entry.
-- RETURNS written: {1, new revision}. Somebody else was first: {0, revision now, or `-`}; nothing is written.
-- ATOMIC  Redis runs a script alone; the revision grows by exactly one with each change, so a gateway that
--         decided on an older one finds out in the same step that would have let its call pass (admit.lua).
--         There is no change without its entry, and no entry without its change.
-- EXPIRY  None: records stay until an operator removes them, also revoked and expired ones; entries stay.
-- MEMORY  Some 600 bytes for each change that was ever made.
-- ACL     +hget +hset +hincrby +sadd +lindex +rpush on the keys given.

local record, index, admin, policy = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local expected, doc, id, last, entry = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

local rev = redis.call('HGET', record, 'rev') or '-'
if rev ~= expected then return {0, rev} end
if (redis.call('LINDEX', admin, -1) or '') ~= last then return {0, rev} end

-- First, since it alone can fail: a generation that was counted up to its end.
redis.call('HINCRBY', policy, 'generation', 1)
rev = rev == '-' and '1' or string.format('%.0f', rev + 1)
redis.call('HSET', record, 'rev', rev, 'doc', doc)
redis.call('SADD', index, id)
redis.call('RPUSH', admin, entry)
return {1, rev}
