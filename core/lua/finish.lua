-- A chunk's object stands in storage: count it, once.
-- KEYS record, done, owners, leases, errors, samples, pace, failed, attempts
-- ARGV chunk, lease member, succeeded, failed, number of times, field, microseconds, …,
--      number of codes, code, images, …, sample, …
-- Returns {answer, 1 if this was the last thing the job waited for}; the answer is FIRST,
-- REPEAT (already counted), LATE (the job had ended without this chunk) or UNKNOWN.
local chunk, succeeded, failed = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4])
local state = redis.call('HGET', KEYS[1], 'state')
if not state then
  return { 'UNKNOWN', 0 }
end
-- Removing comes first: a script that has removed something may write although Redis is full.
redis.call('ZREM', KEYS[4], ARGV[2])
redis.call('HDEL', KEYS[3], chunk)
if redis.call('GETBIT', KEYS[2], chunk) == 1 then
  return { 'REPEAT', settle(KEYS[1], KEYS[3]) }
end
if not COUNTS[state] then
  return { 'LATE', 0 }
end
redis.call('SETBIT', KEYS[2], chunk, 1)
redis.call('HDEL', KEYS[9], chunk, chunk .. ':survived')
local now = now_ms()
redis.call('HINCRBY', KEYS[1], 'done', 1)
if tonumber(chunk) >= tonumber(redis.call('HGET', KEYS[1], 'fed')) then
  redis.call('HINCRBY', KEYS[1], 'ahead', 1)
end
redis.call('HINCRBY', KEYS[1], 'succeeded', succeeded)
redis.call('HINCRBY', KEYS[1], 'failed', failed)
redis.call('HSET', KEYS[1], 'updated_ms', now, 'progress_ms', now)
redis.call('LPUSH', KEYS[7], now .. ' ' .. (succeeded + failed))
redis.call('LTRIM', KEYS[7], 0, 199)
-- Counters come as their number and pairs; returns where the arguments after them begin.
local function count_up(key, at)
  local after = at + 1 + 2 * tonumber(ARGV[at])
  for i = at + 1, after - 1, 2 do
    redis.call('HINCRBY', key, ARGV[i], ARGV[i + 1])
  end
  return after
end

for i = count_up(KEYS[5], count_up(KEYS[1], 5)), #ARGV do
  redis.call('RPUSH', KEYS[6], ARGV[i])
end
redis.call('LTRIM', KEYS[6], 0, 9)
if failed > 0 then
  redis.call('SETBIT', KEYS[8], chunk, 1)
end
return { 'FIRST', settle(KEYS[1], KEYS[3]) }
