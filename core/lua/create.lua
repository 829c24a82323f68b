-- Create a job's record, once.
-- KEYS record, jobs, active   ARGV job, submission, field, value, …
-- Returns '' if created, else the digest of the spec that stands there. The same submission
-- again is this very call, retried because its answer was lost.
local standing = redis.call('HMGET', KEYS[1], 'spec_digest', 'submission')
if standing[1] then
  return standing[2] == ARGV[2] and '' or standing[1]
end
local now = now_ms()
redis.call('HSET', KEYS[1], 'created_ms', now, 'updated_ms', now, 'submission', ARGV[2],
  unpack(ARGV, 3))
redis.call('ZADD', KEYS[2], now, ARGV[1])
redis.call('SADD', KEYS[3], ARGV[1])
return ''
