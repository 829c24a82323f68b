-- Let a paused job go on, unless its record is being made anew.
-- KEYS record, finalizer
-- Returns the state afterwards, or '' if there is no such job.
local state = redis.call('HGET', KEYS[1], 'state')
if state == 'paused' and redis.call('EXISTS', KEYS[2]) == 0 then
  state = 'running'
  redis.call('HSET', KEYS[1], 'state', state, 'updated_ms', now_ms())
end
return state or ''
