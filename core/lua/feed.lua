-- Advance the feed pointer so that at most `window` chunks wait unclaimed.
-- KEYS record, owners, fleet, done   ARGV least window
-- Returns the chunks to send. Finished ones are passed over: there are some after a restoration.
local r = redis.call('HMGET', KEYS[1], 'state', 'fed', 'done', 'chunks', 'window_factor', 'ahead')
if not TAKES_WORK[r[1]] then
  return {}
end
local fed, done, chunks, ahead = tonumber(r[2]), tonumber(r[3]), tonumber(r[4]), tonumber(r[6])
if fed == chunks then
  return {}
end
-- Members are 'slots|worker': the window follows the number of chunks the fleet can hold.
local slots = 0
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], now_ms(), '+inf')) do
  slots = slots + tonumber(string.match(member, '^%d+') or 0)
end
local window = math.ceil(math.max(tonumber(ARGV[1]), 2 * slots) * tonumber(r[5]))
local room = window - (fed - (done - ahead) - redis.call('HLEN', KEYS[2]))
local chosen = {}
while #chosen < room and fed < chunks do
  if ahead > 0 and redis.call('GETBIT', KEYS[4], fed) == 1 then
    ahead = ahead - 1
  else
    chosen[#chosen + 1] = fed
  end
  fed = fed + 1
end
redis.call('HSET', KEYS[1], 'fed', fed, 'ahead', ahead)
return chosen
