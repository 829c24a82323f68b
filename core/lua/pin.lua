-- Storage says which model a job began with: Redis may have lost that and pinned another.
-- KEYS record   ARGV model version, model digest
-- Returns 1 if the job is under way.
if not COUNTS[redis.call('HGET', KEYS[1], 'state')] then
  return 0
end
redis.call('HSET', KEYS[1], 'version', ARGV[1], 'digest', ARGV[2], 'updated_ms', now_ms())
return 1
