-- Let a paused job go on.
-- KEYS record
-- Returns the state afterwards, or '' if there is no such job.
local state = redis.call('HGET', KEYS[1], 'state')
if state == 'paused' then
  state = 'running'
  redis.call('HSET', KEYS[1], 'state', state, 'updated_ms', now_ms())
end
return state or ''
