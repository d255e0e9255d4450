#!lua flags=no-writes
-- look: how windows stand, without a draw and without a write, so that a user who may only read can run it.
--
-- KEYS    windows (LISTs that only admit.lua writes; see there), in Redis Cluster all with one hash tag.
-- ARGV    for each window: limit, length_us, grain_us, cost.
-- RETURNS {remaining_1, reset_us_1, wait_us_1, used_1, ..}: remaining and reset as admit.lua returns them when it draws nothing.
--         wait_us: how long until the cost would fit if nobody else drew; 0 if it does now, -1 if it never can (cost
--         above limit). used: the units in use, more than the limit in a window that was overdrawn. Draws that are dated further ahead than a whole window and a grain are taken as of now, as
--         admit.lua dates them.
-- ATOMIC  Redis runs a script alone.
-- EXPIRY  None: it only reads.
-- MEMORY  None.
-- ACL     +time +lindex +lrange on the keys given, to read; run it with EVALSHA_RO.

local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]

local function number_at(key, index)
  return tonumber(redis.call('LINDEX', key, index) or nil)
end

-- For how many draws at the head `holds` is true; it is true for the first few and for none after them.
local function count_while(holds)
  local low, high = 0, 1
  while holds(high) do low, high = high, 2 * high end
  while high - low > 1 do
    local middle = math.floor((low + high) / 2)
    if holds(middle) then low = middle else high = middle end
  end
  return low
end

-- How long until `excess` units have left the window, of which `first` had left by its oldest draw.
local function wait_for(key, length, first, excess)
  local too_few = count_while(function(draw)
    local total = number_at(key, 2 * draw)
    return total and total - first < excess
  end)
  return number_at(key, 2 * too_few + 1) + length - now
end

local reply = {}
for i, key in ipairs(KEYS) do
  local limit, length = tonumber(ARGV[4 * i - 3]), tonumber(ARGV[4 * i - 2])
  local grain, cost = tonumber(ARGV[4 * i - 1]), tonumber(ARGV[4 * i])
  local left = count_while(function(draw)
    local time = number_at(key, 2 * draw - 1)
    return time and time + length <= now
  end)
  local first, oldest = number_at(key, 2 * left) or 0, number_at(key, 2 * left + 1)
  local last = number_at(key, -1) or 0
  local newest = oldest and number_at(key, -2)
  local ahead = newest and newest > now + length + grain
  if ahead then oldest = math.ceil(now / grain) * grain end
  local used = oldest and last - first or 0
  local excess, wait = used + cost - limit, 0
  if cost > limit then
    wait = -1
  elseif cost > 0 and excess > 0 then
    wait = ahead and oldest + length - now or wait_for(key, length, first, excess)
  end
  reply[#reply + 1] = math.max(0, limit - used)
  reply[#reply + 1] = oldest and oldest + length - now or 0
  reply[#reply + 1] = wait
  reply[#reply + 1] = used
end
return reply
