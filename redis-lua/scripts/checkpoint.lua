#!lua
-- checkpoint: notes how far an audit chain has come, and neither goes back nor takes another history of it.
--
-- KEYS    chain (HASH with `seq`, `hash`, `time` and `build`), index (ZSET of the names of chains by time); one hash tag.
-- ARGV    the chain's name; seq and hash of the entry that the writer last had noted (0 and empty for none); seq and hash
--         of the entry to note; the build of the writer.
-- RETURNS noted: {1}. Noted, and Redis had lost what the writer had noted before: {2}. Refused, nothing is written:
--         {0, seq, hash} as they are noted: a later entry, another one in the same place, or one that the writer never noted.
-- ATOMIC  Redis runs a script alone.
-- EXPIRY  400 days after the last checkpoint.
-- MEMORY  Some 300 bytes for each chain of the last 400 days.
-- TIME    Redis's own.
-- ACL     +time +hget +hset +pexpire +zadd +zremrangebyscore on the keys given.

local KEPT = 400 * 86400

local chain, index, name = KEYS[1], KEYS[2], ARGV[1]
local last, last_hash, seq, hash, build = tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4]), ARGV[5], ARGV[6]

local noted = tonumber(redis.call('HGET', chain, 'seq') or 0)
local noted_hash = redis.call('HGET', chain, 'hash') or ''

local same = noted == seq and noted_hash == hash -- asked again after a reply was lost
local behind = noted < last
local onward = noted == last and noted_hash == last_hash and seq > last
if not (same or onward or (behind and seq > noted)) then return {0, noted, noted_hash} end

local now = tonumber(redis.call('TIME')[1])
redis.call('HSET', chain, 'seq', ARGV[4], 'hash', hash, 'time', string.format('%.0f', now), 'build', build)
redis.call('PEXPIRE', chain, KEPT * 1000)
redis.call('ZADD', index, now, name)
redis.call('ZREMRANGEBYSCORE', index, '-inf', string.format('%.0f', now - KEPT))
redis.call('PEXPIRE', index, KEPT * 1000)
return {behind and 2 or 1}
