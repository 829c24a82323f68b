-- May this process try to tell a job's end now? Then nobody else does for the length of a lease.
-- KEYS notifications, record   ARGV job, lease ms
-- Returns which try it is, or 0.
local due = redis.call('ZSCORE', KEYS[1], ARGV[1])
local now = now_ms()
if not due or tonumber(due) > now then
  return 0
end
if redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('ZREM', KEYS[1], ARGV[1])
  return 0
end
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
redis.call('HSET', KEYS[2], 'notify_due_ms', now + tonumber(ARGV[2]))
return redis.call('HINCRBY', KEYS[2], 'notify_attempts', 1)
