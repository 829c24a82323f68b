-- Finalization is written: move from finalizing to the ending.
-- KEYS record, active, notifications
-- ARGV job, state, reason, cancelled images, completion in ms, 1 if somebody is to be told
-- Returns 1 if it moved now.
if redis.call('HGET', KEYS[1], 'state') ~= 'finalizing' then
  return 0
end
redis.call('HSET', KEYS[1], 'state', ARGV[2], 'reason', ARGV[3], 'cancelled', ARGV[4],
  'completed_ms', ARGV[5], 'updated_ms', ARGV[5])
redis.call('SREM', KEYS[2], ARGV[1])
if ARGV[6] == '1' then
  local now = now_ms()
  redis.call('ZADD', KEYS[3], now, ARGV[1])
  redis.call('HSET', KEYS[1], 'notify_state', 'waiting', 'notify_due_ms', now)
end
return 1
