#!lua
-- admit: is the record still the one the filter decided on, and does the call fit every window?
-- If both, draws from every window; if not, from none. One atomic step, one round trip.
--
-- KEYS    guard_1 .. guard_g, window_1 .. window_w, a mark for each window that has an alert (in their
--         order), the use if one is to be noted, and the intents if one is to be appended; all different, in Redis Cluster all with one hash tag.
--         A guard is a HASH with the fields `rev` and `doc`. A window is a LIST, a mark a HASH and a use
--         a HASH that only this script writes. The intents are a STREAM.
-- ARGV    g, or `g,o` where guard o, from 1, is the organisation's policy; then `+` if an intent is to be appended; expected_1 .. expected_g, then for each window: limit, length_us, grain_us, cost, alert; then,
--         if a use is to be noted, the field of it that gets the time in whole seconds; and the intent.
--         expected: a revision; `-` for a guard that should be absent; `?` for one not known yet
--         (which always counts as moved). Numbers are decimal integers, not negative; length_us and
--         grain_us above 0. alert: from how many units in use on to raise it; 0 for never.
-- RETURNS each of these, and then the organisation's generation (the field `generation` of guard o, which every
--         change of a key, a policy or a denial increases; 0 without one) and the time in microseconds:
--         a guard moved: {0, rev_1, doc_1 .. rev_g, doc_g}. `rev` is `-` for an absent guard; `doc`
--           is nil for an absent guard and for one that did not move.
--         a window is full: {2, retry_after_us, index, remaining_1, reset_us_1, raised_1 .. }.
--           retry_after_us is exactly when the call would fit if nobody else drew, or -1 if it never can
--           (cost above limit); index, from 0, is the window that has to be waited for longest.
--         drawn: {1, remaining_1, reset_us_1, raised_1 .. }.
--         A use is noted in the latter two cases, whether the windows admit the call or not; the filter asks
--         for it when the policy allows the call. So is an intent appended.
--         remaining: units left after this call. reset_us: when the oldest drawn units come back; 0 if
--         none are drawn. raised: 1 if this very reply carries the window's alert, and 2 more if draws of the
--         window were dated anew (TIME).
--
-- LEDGER  A window's list reads  total_0, time_1, total_1, time_2, total_2 ..: each draw appends its
--         time and the running total after it, or adds to the last total if the time is the same; the head
--         is the total before the oldest draw. What is in use is last minus first. Draws that left the
--         window are trimmed off, two elements each, which makes the total of the last of them the new
--         head. Times and totals only grow, so how many draws have left, and which one must leave for a
--         call to fit, is found by galloping from the head: O(log n) peeks in the n draws passed over, one
--         or two in practice.
-- EXACT   A draw is dated with its microsecond, rounded up to the next multiple of grain_us, and counts until
--         it is `length_us` old: never shorter than it should, hence no half-open interval [t, t + length_us)
--         ever holds more than `limit`; and less than grain_us longer, hence every call is admitted that
--         would fit a window of length_us + grain_us. With a grain of 1 the window is exact.
-- ALERT   Raised by the first call after which at least `alert` units are in use, or which the window is too
--         full for. The mark, which lasts for length_us, keeps it from being raised again until then.
-- ATOMIC  Redis runs a script alone. Everything that can fail (wrong types, bad arguments, a right that the
--         user lacks) is read or done before the first draw of a window, and the `#!lua` line makes Redis refuse the whole script up front when memory is
--         full, so a draw is never left half done.
-- EXPIRY  Every draw sets the key to expire when that draw leaves the window. A use is kept for 90 days, intents for a day
--         after the last one.
-- MEMORY  Two integers for each different date inside the window, some 15 bytes: at most `limit` of them, and
--         at most one more than length_us / grain_us, rounded up. Of intents, and what complete.lua adds, the last 100,000.
-- TIME    Redis's own, read once, so all gateways share one clock. If it jumps back (a failover), new draws
--         are dated like the newest one and stay longer; more than `limit` is never admitted. If that one lies
--         further ahead than a whole window, all draws are dated now, as one: each stays for at most length_us from
--         now on, and never shorter than it should.
-- ACL     +time +hget +hset +lindex +lrange +lset +ltrim +rpush +pexpireat on the keys given; +xadd +pexpire for intents.

local GUARD_MOVED, DRAWN, FULL = 0, 1, 2
local NEVER = -1
local USE_KEPT_MS = 90 * 86400000
local PER_WINDOW = 5

-- A whole number goes to a command as its digits, also one that Lua itself would write as 1.7e+15.
local call, tonumber = redis.call, tonumber
local ceil, floor, max = math.ceil, math.floor, math.max

local function guards_moved(count)
  local moved, reply = false, {GUARD_MOVED}
  for i = 1, count do
    local rev, doc = call('HGET', KEYS[i], 'rev') or '-', false
    if rev ~= ARGV[1 + i] then
      moved, doc = true, call('HGET', KEYS[i], 'doc')
    end
    reply[2 * i], reply[2 * i + 1] = rev, doc
  end
  return moved and reply
end

-- Asked for before a key is made: it fails without the right, so that no key is ever left without an expiry.
local function may_expire(key, at_ms)
  call('PEXPIREAT', key, at_ms)
end

local function note_use(key, field, now)
  local expires = ceil(now / 1000) + USE_KEPT_MS
  may_expire(key, expires)
  call('HSET', key, field, floor(now / 1000000))
  call('PEXPIREAT', key, expires)
end

-- For how many draws at the head `holds` is true; it is true for the first few and for none after them.
local function count_while(holds)
  local low, high = 0, 1
  while holds(high) do low, high = high, 2 * high end
  while high - low > 1 do
    local middle = floor((low + high) / 2)
    if holds(middle) then low = middle else high = middle end
  end
  return low
end

local function time_of(key, draw)
  return tonumber(call('LINDEX', key, 2 * draw - 1))
end

local function total_after(key, draw)
  return tonumber(call('LINDEX', key, 2 * draw))
end

local function read_tail(window)
  local tail = call('LRANGE', window.key, -2, -1)
  window.newest, window.last = tonumber(tail[2] and tail[1]), tonumber(tail[2] or tail[1] or 0)
end

-- Reads the head as it is without the draws that left, and trims those off. In a steady stream one of them leaves with
-- each call, so the second draw is read along with the first.
local function read_head(window, now)
  local head = call('LRANGE', window.key, 0, 3)
  local oldest, since = tonumber(head[2]), now - window.length
  if not oldest or oldest > since then
    window.first, window.oldest = tonumber(head[1] or 0), oldest
    return
  end
  local left, second = 1, tonumber(head[4])
  if second and second <= since then
    left = count_while(function(draw)
      if draw <= 2 then return true end
      local time = time_of(window.key, draw)
      return time and time <= since
    end)
  end
  call('LTRIM', window.key, 2 * left, -1)
  if left > 1 then head = call('LRANGE', window.key, 0, 1) else head = {head[3], head[4]} end
  window.first, window.oldest = tonumber(head[1]), tonumber(head[2])
end

-- After a jump of the clock back, draws would count for as long as it was ahead.
local function date_draws_anew(window, now)
  if not window.newest or window.newest <= now + window.length + window.grain then return end
  local used = window.last - window.first
  local time = ceil(now / window.grain) * window.grain
  call('LTRIM', window.key, 1, 0)
  call('RPUSH', window.key, 0, time, used)
  call('PEXPIREAT', window.key, ceil((time + window.length) / 1000))
  window.first, window.last, window.oldest, window.newest = 0, used, time, time
  window.redated = true
end

-- How long until `excess` units have left the window.
local function wait_for(window, excess, now)
  local too_few = count_while(function(draw)
    local total = total_after(window.key, draw)
    return total and total - window.first < excess
  end)
  return time_of(window.key, too_few + 1) + window.length - now
end

local function draw(window, now)
  local time = max(ceil(now / window.grain) * window.grain, window.newest or 0)
  local expires = ceil((time + window.length) / 1000)
  if not window.newest then may_expire(window.key, expires) end
  window.last = window.last + window.cost
  if time == window.newest then
    call('LSET', window.key, -1, window.last)
  else
    if window.last == window.cost then call('RPUSH', window.key, 0) end
    call('RPUSH', window.key, time, window.last)
  end
  call('PEXPIREAT', window.key, expires)
  window.oldest = window.oldest or time
end

-- Whether this call is the one that carries the window's alert.
local function raises(window, now)
  local reached = window.alert > 0 and (window.full or window.last - window.first >= window.alert)
  if not reached or call('HGET', window.mark, 'raised') then return 0 end
  local expires = floor((now + window.length) / 1000)
  may_expire(window.mark, expires)
  call('HSET', window.mark, 'raised', 1)
  call('PEXPIREAT', window.mark, expires)
  return 1
end

local guards, own, appends = string.match(ARGV[1], '^(%d+),?(%d*)(%+?)$')
guards, own = tonumber(guards), tonumber(own)

local clock = call('TIME')
local now = clock[1] * 1000000 + clock[2]

local function stamped(reply)
  reply[#reply + 1] = own and tonumber(call('HGET', KEYS[own], 'generation')) or 0
  reply[#reply + 1] = now
  return reply
end

local moved = guards_moved(guards)
if moved then return stamped(moved) end

local keys, args = #KEYS, #ARGV
if appends == '+' then
  call('XADD', KEYS[keys], 'MAXLEN', '~', 100000, '*', 'intent', ARGV[args])
  call('PEXPIRE', KEYS[keys], 86400000)
  keys, args = keys - 1, args - 1
end

local numbers = args - 1 - guards
if numbers % PER_WINDOW == 1 then note_use(KEYS[keys], ARGV[args], now) end

local windows, retry_after, index = {}, 0, nil
local count = floor(numbers / PER_WINDOW)
local mark = guards + count
for i = 1, count do
  local at = 2 + guards + PER_WINDOW * (i - 1)
  local window = {
    key = KEYS[guards + i], limit = tonumber(ARGV[at]), length = tonumber(ARGV[at + 1]),
    grain = tonumber(ARGV[at + 2]), cost = tonumber(ARGV[at + 3]), alert = tonumber(ARGV[at + 4]),
    first = 0, last = 0, oldest = false, newest = false, full = false, redated = false, mark = false,
  }
  if window.alert > 0 then
    mark = mark + 1
    window.mark = KEYS[mark]
  end
  read_head(window, now)
  read_tail(window)
  date_draws_anew(window, now)
  windows[i] = window

  local excess = window.last - window.first + window.cost - window.limit
  window.full = window.cost > 0 and excess > 0
  if window.full and retry_after ~= NEVER then
    local wait = window.cost > window.limit and NEVER or wait_for(window, excess, now)
    if wait == NEVER or wait > retry_after then
      retry_after, index = wait, i - 1
    end
  end
end

local reply = index and {FULL, retry_after, index} or {DRAWN}
for _, window in ipairs(windows) do
  if not index and window.cost > 0 then draw(window, now) end
  reply[#reply + 1] = max(0, window.limit - (window.last - window.first))
  reply[#reply + 1] = window.oldest and window.oldest + window.length - now or 0
  reply[#reply + 1] = raises(window, now) + (window.redated and 2 or 0)
end
return stamped(reply)
