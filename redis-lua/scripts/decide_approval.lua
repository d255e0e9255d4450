#!lua
-- decide_approval: a person's word on a call that waits, and the entry that tells whose word it was.
--
-- KEYS    approval (HASH with `rev` and `doc`), index (ZSET scored by expiry in milliseconds), admin (LIST of
--         entries, oldest first), own (ZSET of one caller, scored likewise; absent for an approval that an earlier
--         ask_approval noted without its name); one hash tag.
-- ARGV    name in the index, `granted` or `denied`, life_ms, last entry of the admin chain as it was read (empty if
--         there was none), new entry, document as it was read.
-- RETURNS decided: {1, rev}. Nothing waits under this name any more: {0, rev now, or `-`}. Another request waits under it
--         now, with another document: {0, 'pending'}. The admin chain has another end: {2, rev now}. In all three,
--         nothing is written.
-- ATOMIC  Redis runs a script alone. There is no decision without its entry.
-- EXPIRY  life_ms after the decision. In `own`, a denied call expires at once: it waits no more, and ask_approval does
--         not count it.
-- MEMORY  The entry.
-- ACL     +time +hget +hset +pexpire +pttl +zadd +lindex +rpush on the keys given.

local approval, index, admin, own = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local name, verdict, life_ms, last, entry = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local doc = ARGV[6]

local rev = redis.call('HGET', approval, 'rev') or '-'
if rev ~= 'pending' or redis.call('HGET', approval, 'doc') ~= doc then return {0, rev} end
if (redis.call('LINDEX', admin, -1) or '') ~= last then return {2, rev} end

local clock = redis.call('TIME')
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function note(set, ends_ms)
  redis.call('ZADD', set, string.format('%.0f', ends_ms), name)
  if redis.call('PTTL', set) < life_ms then redis.call('PEXPIRE', set, life_ms) end
end

redis.call('HSET', approval, 'rev', verdict)
redis.call('PEXPIRE', approval, life_ms)
note(index, now_ms + life_ms)
if own then note(own, verdict == 'denied' and now_ms or now_ms + life_ms) end
redis.call('RPUSH', admin, entry)
return {1, verdict}
