-- Finalization is written: move from finalizing to the ending.
-- KEYS record, active   ARGV job, state, reason, cancelled images
-- Returns the state the job is in afterwards.
local state = redis.call('HGET', KEYS[1], 'state')
if state == 'finalizing' then
  local now = now_ms()
  redis.call('HSET', KEYS[1], 'state', ARGV[2], 'reason', ARGV[3], 'cancelled', ARGV[4],
    'completed_ms', now, 'updated_ms', now)
  redis.call('SREM', KEYS[2], ARGV[1])
  return ARGV[2]
end
return state or ''
