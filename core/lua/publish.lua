-- A manifest part was written: its chunks may be fed.
-- KEYS record   ARGV part, rows, chunks
-- Parts are published in order and once: repeating a call changes nothing.
-- Nothing is published into a job that has been given up. Returns the job's state, or '' if
-- there is no such job.
local state = redis.call('HGET', KEYS[1], 'state')
if not state then
  return ''
end
if not GOES_ON[state] or redis.call('HGET', KEYS[1], 'parts') ~= ARGV[1] then
  return state
end
redis.call('HINCRBY', KEYS[1], 'parts', 1)
redis.call('HINCRBY', KEYS[1], 'total', ARGV[2])
redis.call('HINCRBY', KEYS[1], 'chunks', ARGV[3])
redis.call('HSET', KEYS[1], 'updated_ms', now_ms())
if state == 'queued' then
  state = 'enqueuing'
  redis.call('HSET', KEYS[1], 'state', state)
end
return state
