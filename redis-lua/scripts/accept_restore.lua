#!lua
-- accept_restore: makes the organisation's generation greater than any that a gateway can have seen, and notes who did it,
-- only if the end of the organisation's admin chain is still what the writer read (compare and set).
--
-- KEYS    policy (HASH, of which `generation` grows with each change; see admit.lua), admin (LIST of entries, oldest first);
--         one hash tag.
-- ARGV    last entry as it was read (empty if there was none), new entry.
-- RETURNS written: {1}. Somebody else was first: {0}; nothing is written.
-- ATOMIC  Redis runs a script alone. There is no change without its entry, and no entry without its change.
-- GROWTH  A change adds one. This makes it the time in seconds, times 2^20: it exceeds all that was accepted before, and
--         leaves room for a million changes until the next time. What is above 2^20 tells when a restore was last accepted.
-- EXPIRY  None.
-- MEMORY  Some 600 bytes for each entry.
-- ACL     +time +hget +hset +lindex +rpush on the keys given.

local policy, admin = KEYS[1], KEYS[2]
local last, entry = ARGV[1], ARGV[2]

if (redis.call('LINDEX', admin, -1) or '') ~= last then return {0} end

local before = tonumber(redis.call('HGET', policy, 'generation')) or 0
local accepted = redis.call('TIME')[1] * 1048576
redis.call('HSET', policy, 'generation', string.format('%.0f', math.max(accepted, before + 1)))
redis.call('RPUSH', admin, entry)
return {1}
