-- Finalization is written: move from finalizing to the ending.
-- KEYS record, active   ARGV job, state, reason, cancelled images, completion in ms
-- Returns 1 if it moved now.
if redis.call('HGET', KEYS[1], 'state') ~= 'finalizing' then
  return 0
end
redis.call('HSET', KEYS[1], 'state', ARGV[2], 'reason', ARGV[3], 'cancelled', ARGV[4],
  'completed_ms', ARGV[5], 'updated_ms', ARGV[5])
redis.call('SREM', KEYS[2], ARGV[1])
return 1
