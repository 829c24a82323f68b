-- Advance the feed pointer so that at most `window` chunks wait unclaimed.
-- KEYS record, owners, fleet   ARGV least window
-- Returns {first chunk to send, how many}.
local r = redis.call('HMGET', KEYS[1], 'state', 'fed', 'done', 'chunks', 'window_factor')
if not TAKES_WORK[r[1]] then
  return { 0, 0 }
end
local fed, done, chunks = tonumber(r[2]), tonumber(r[3]), tonumber(r[4])
if fed == chunks then
  return { fed, 0 }
end
-- Members are 'slots|worker': the window follows the number of chunks the fleet can hold.
local slots = 0
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], now_ms(), '+inf')) do
  slots = slots + tonumber(string.match(member, '^%d+') or 0)
end
local window = math.ceil(math.max(tonumber(ARGV[1]), 2 * slots) * tonumber(r[5]))
local waiting = fed - done - redis.call('HLEN', KEYS[2])
local n = math.min(window - waiting, chunks - fed)
if n <= 0 then
  return { fed, 0 }
end
redis.call('HSET', KEYS[1], 'fed', fed + n)
return { fed, n }
