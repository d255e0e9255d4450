#!lua
-- forget: removes windows and the marks of their alerts, and notes who did it, only if the end of the organisation's admin
-- chain is still what the writer read (compare and set).
--
-- KEYS    admin (LIST of entries, oldest first), then all that is to be removed; one hash tag.
-- ARGV    last entry as it was read (empty if there was none), new entry.
-- RETURNS removed: {1}. Somebody else was first: {0}; nothing is changed.
-- ATOMIC  Redis runs a script alone. There is no change without its entry, and no entry without its change.
-- EXPIRY  None.
-- MEMORY  Some 600 bytes for each entry.
-- ACL     +del +lindex +rpush on the keys given.

local admin = KEYS[1]
local last, entry = ARGV[1], ARGV[2]

if (redis.call('LINDEX', admin, -1) or '') ~= last then return {0} end

for place = 2, #KEYS do
  redis.call('DEL', KEYS[place])
end
redis.call('RPUSH', admin, entry)
return {1}
