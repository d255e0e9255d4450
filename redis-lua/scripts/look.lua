#!lua flags=no-writes
-- look: how windows stand, without a draw and without a write, so that a user who may only read can run it.
--
-- KEYS    windows (LISTs that only admit.lua writes; see there), in Redis Cluster all with one hash tag.
-- ARGV    for each window: limit, length_us.
-- RETURNS {1, remaining_1, reset_us_1, 0 or 2, .. , 0, the time in microseconds}: as admit.lua returns when it draws nothing.
--         2: the draws are dated further ahead than a whole window; admit.lua would date them now, and so does this.
-- ATOMIC  Redis runs a script alone.
-- EXPIRY  None: it only reads.
-- MEMORY  None.
-- ACL     +time +lindex +lrange on the keys given, to read; run it with EVALSHA_RO.

local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]

local function number_at(key, index)
  return tonumber(redis.call('LINDEX', key, index) or nil)
end

-- How many draws at the head have left the window: the first few, and none after them.
local function count_left(key, length)
  local function has_left(draw)
    local time = number_at(key, 2 * draw - 1)
    return time and time + length <= now
  end
  local low, high = 0, 1
  while has_left(high) do low, high = high, 2 * high end
  while high - low > 1 do
    local middle = math.floor((low + high) / 2)
    if has_left(middle) then low = middle else high = middle end
  end
  return low
end

local reply = {1}
for i, key in ipairs(KEYS) do
  local limit, length = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  local left = count_left(key, length)
  local first, oldest = number_at(key, 2 * left) or 0, number_at(key, 2 * left + 1)
  local last = number_at(key, -1) or 0
  local newest, redated = oldest and number_at(key, -2), 0
  if newest and newest > now + 2 * length then oldest, redated = now, 2 end
  local used = oldest and last - first or 0
  reply[#reply + 1] = math.max(0, limit - used)
  reply[#reply + 1] = oldest and oldest + length - now or 0
  reply[#reply + 1] = redated
end
reply[#reply + 1] = 0
reply[#reply + 1] = now
return reply
