-- Let nothing new be claimed until the job is resumed.
-- KEYS record
-- Returns the state afterwards, or '' if there is no such job.
local state = redis.call('HGET', KEYS[1], 'state')
if TAKES_WORK[state] then
  state = 'paused'
  redis.call('HSET', KEYS[1], 'state', state, 'updated_ms', now_ms())
end
return state or ''
