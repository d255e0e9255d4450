#!lua
-- put_record: writes a key record only if it is still the revision the writer read (compare and set).
--
-- KEYS    record (HASH with `rev` and `doc`), index (SET of the organisation's record ids); one hash tag.
-- ARGV    expected revision or `-` for a record that must not exist yet, new document, record id.
-- RETURNS written: {1, new revision}. Somebody else was first: {0, revision now, or `-`}; nothing is written.
-- ATOMIC  Redis runs a script alone; the revision grows by exactly one with each change, so a gateway that
--         decided on an older one finds out in the same step that would have let its call pass (admit.lua).
-- EXPIRY  None: records stay until an operator removes them, also revoked and expired ones.
-- ACL     +hget +hset +sadd on the keys given.

local record, index = KEYS[1], KEYS[2]
local expected, doc, id = ARGV[1], ARGV[2], ARGV[3]

local rev = redis.call('HGET', record, 'rev') or '-'
if rev ~= expected then return {0, rev} end

rev = rev == '-' and '1' or string.format('%.0f', rev + 1)
redis.call('HSET', record, 'rev', rev, 'doc', doc)
redis.call('SADD', index, id)
return {1, rev}
