-- Change how many of a job's chunks may wait in its queue.
-- KEYS record   ARGV window factor
-- Returns the state, or '' if there is no such job.
local state = redis.call('HGET', KEYS[1], 'state')
if GOES_ON[state] then
  redis.call('HSET', KEYS[1], 'window_factor', ARGV[1], 'updated_ms', now_ms())
end
return state or ''
