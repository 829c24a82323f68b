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

-- BITPOS begins at a byte: up to the next one, step. It says -1 beyond the end of the bitmap.
local function next_unfinished(chunk)
  while chunk % 8 ~= 0 and redis.call('GETBIT', KEYS[4], chunk) == 1 do
    chunk = chunk + 1
  end
  if chunk % 8 ~= 0 then
    return chunk
  end
  return math.max(chunk, redis.call('BITPOS', KEYS[4], 0, chunk / 8))
end

local chosen = {}
while #chosen < room and fed < chunks do
  if ahead > 0 then
    local chunk = math.min(next_unfinished(fed), chunks)
    fed, ahead = chunk, ahead - (chunk - fed)
  end
  if fed < chunks then
    chosen[#chosen + 1] = fed
    fed = fed + 1
  end
end
redis.call('HSET', KEYS[1], 'fed', fed, 'ahead', ahead)
return chosen
