#!lua
-- admit: is the record still the one the filter decided on, and does the call fit every window?
-- If both, draws from every window; if not, from none. One atomic step, one round trip.
--
-- KEYS    guard_1 .. guard_g, window_1 .. window_w, and the use if one is to be noted; all different, all
--         with one hash tag. A guard is a HASH with the fields `rev` and `doc`. A window is a LIST and a
--         use is a HASH that only this script writes.
-- ARGV    g, expected_1 .. expected_g, then for each window: limit, length_us, cost; then, if a use is to
--         be noted, the field of it that gets the time in whole seconds.
--         expected: a revision; `-` for a guard that should be absent; `?` for one not known yet
--         (which always counts as moved). Numbers are decimal integers, not negative; length_us above 0.
-- RETURNS a guard moved: {0, rev_1, doc_1 .. rev_g, doc_g}. `rev` is `-` for an absent guard; `doc`
--           is nil for an absent guard and for one that did not move.
--         a window is full: {2, retry_after_us, index, remaining_1, reset_us_1 .. }. retry_after_us is
--           exactly when the call would fit if nobody else drew, or -1 if it never can (cost above
--           limit); index, from 0, is the window that has to be waited for longest.
--         drawn: {1, remaining_1, reset_us_1 .. }.
--         A use is noted in the latter two cases: whoever holds a key uses it, admitted or not.
--         remaining: units left after this call. reset_us: when the oldest drawn units come back; 0 if
--         none are drawn.
--
-- LEDGER  A window's list reads  total_0, time_1, total_1, time_2, total_2 ..: each draw appends its
--         time and the running total after it; the head is the total before the oldest draw. What is in
--         use is last minus first. Draws that left the window are trimmed off, two elements each, which
--         makes the total of the last of them the new head. Nothing is ever rewritten. Times and totals
--         only grow, so how many draws have left, and which one must leave for a call to fit, is found by
--         galloping from the head: O(log n) peeks in the n draws passed over, one or two in practice.
-- EXACT   Each draw is kept with its own microsecond until it is `length_us` old, so no half-open interval
--         [t, t + length_us) ever holds more than `limit`. There are no buckets and nothing is estimated.
-- ATOMIC  Redis runs a script alone. Everything that can fail (wrong types, bad arguments) is read before
--         the first draw, and the `#!lua` line makes Redis refuse the whole script up front when memory is
--         full, so a draw is never left half done.
-- EXPIRY  Every draw sets the key to expire when that draw leaves the window. A use is kept for 90 days.
-- MEMORY  Two integers for each admitted call still inside the window: at most `limit` calls, some 15 bytes each.
-- TIME    Redis's own, read once, so all gateways share one clock. If it jumps back (a failover), new draws
--         are dated like the newest one and stay longer; more than `limit` is never admitted.
-- ACL     +time +hget +hset +lindex +lrange +ltrim +rpush +pexpireat on the keys given.

local GUARD_MOVED, DRAWN, FULL = 0, 1, 2
local NEVER = -1
local USE_KEPT_MS = 90 * 86400000

local function integer(number)
  return string.format('%.0f', number) -- Lua would write 1.7e+15
end

local function guards_moved(count)
  local moved, reply = false, {GUARD_MOVED}
  for i = 1, count do
    local rev, doc = redis.call('HGET', KEYS[i], 'rev') or '-', false
    if rev ~= ARGV[1 + i] then
      moved, doc = true, redis.call('HGET', KEYS[i], 'doc')
    end
    reply[2 * i], reply[2 * i + 1] = rev, doc
  end
  return moved and reply
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

local function time_of(key, draw)
  return tonumber(redis.call('LINDEX', key, 2 * draw - 1))
end

local function total_after(key, draw)
  return tonumber(redis.call('LINDEX', key, 2 * draw))
end

local function drop_draws_that_left(key, length, now)
  local left = count_while(function(draw)
    local time = time_of(key, draw)
    return time and time + length <= now
  end)
  if left > 0 then redis.call('LTRIM', key, 2 * left, -1) end
end

-- How long until `excess` units have left the window.
local function wait_for(window, excess, now)
  local too_few = count_while(function(draw)
    local total = total_after(window.key, draw)
    return total and total - window.first < excess
  end)
  return time_of(window.key, too_few + 1) + window.length - now
end

local function note_use(key, field, now)
  redis.call('HSET', key, field, integer(math.floor(now / 1000000)))
  redis.call('PEXPIREAT', key, integer(math.ceil(now / 1000) + USE_KEPT_MS))
end

local guards = tonumber(ARGV[1])
local windows_given = math.floor((#ARGV - 1 - guards) / 3)
local moved = guards_moved(guards)
if moved then return moved end

local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]

if #KEYS > guards + windows_given then note_use(KEYS[#KEYS], ARGV[#ARGV], now) end

local windows, retry_after, index = {}, 0, nil
for i = 1, windows_given do
  local at = guards + 3 * i - 1
  local window = {key = KEYS[guards + i]}
  window.limit, window.length, window.cost = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  drop_draws_that_left(window.key, window.length, now)
  local head, tail = redis.call('LRANGE', window.key, 0, 1), redis.call('LRANGE', window.key, -2, -1)
  window.first, window.oldest = tonumber(head[1] or 0), tonumber(head[2])
  window.newest, window.last = tonumber(tail[2] and tail[1]), tonumber(tail[2] or tail[1] or 0)
  windows[i] = window

  local excess = window.last - window.first + window.cost - window.limit
  if excess > 0 and retry_after ~= NEVER then
    local wait = window.cost > window.limit and NEVER or wait_for(window, excess, now)
    if wait == NEVER or wait > retry_after then
      retry_after, index = wait, i - 1
    end
  end
end

local reply = index and {FULL, retry_after, index} or {DRAWN}
for _, window in ipairs(windows) do
  if not index and window.cost > 0 then
    local time = math.max(now, window.newest or 0)
    if window.last == 0 then redis.call('RPUSH', window.key, 0) end
    window.last = window.last + window.cost
    window.oldest = window.oldest or time
    redis.call('RPUSH', window.key, integer(time), integer(window.last))
    redis.call('PEXPIREAT', window.key, integer(math.ceil((time + window.length) / 1000)))
  end
  reply[#reply + 1] = math.max(0, window.limit - (window.last - window.first))
  reply[#reply + 1] = window.oldest and window.oldest + window.length - now or 0
end
return reply
