-- Let a paused job go on, unless its record is being made anew by somebody else.
-- KEYS record, finalizer   ARGV 1 if the caller itself made it anew
-- Returns the state afterwards, or '' if there is no such job.
local state = redis.call('HGET', KEYS[1], 'state')
if state == 'paused' and (ARGV[1] == '1' or redis.call('EXISTS', KEYS[2]) == 0) then
  state = 'running'
  redis.call('HSET', KEYS[1], 'state', state, 'updated_ms', now_ms())
end
return state or ''
