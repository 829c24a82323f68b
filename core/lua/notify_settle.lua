-- What came of a try to tell a job's end.
-- KEYS notifications, record   ARGV job, state, error, ms until it is tried again
-- A try that ends after its lease changes nothing, if another one has settled it, unless it
-- was the one that was taken.
local waits = redis.call('ZSCORE', KEYS[1], ARGV[1])
if redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('ZREM', KEYS[1], ARGV[1])
elseif ARGV[2] == 'waiting' then
  if waits then
    local due = now_ms() + tonumber(ARGV[4])
    redis.call('ZADD', KEYS[1], due, ARGV[1])
    redis.call('HSET', KEYS[2], 'notify_error', ARGV[3], 'notify_due_ms', due)
  end
elseif waits or ARGV[2] == 'delivered' then
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('HSET', KEYS[2], 'notify_state', ARGV[2], 'notify_error', ARGV[3],
    'notify_due_ms', '')
end
