-- A manifest part was written: its chunks may be fed.
-- KEYS record   ARGV part, rows, chunks
-- Parts are published in order and once: repeating a call changes nothing.
-- Nothing is published into a job that has been given up. Returns {the job's state, or '' if
-- there is no such job; how many parts are published}.
local r = redis.call('HMGET', KEYS[1], 'state', 'parts')
local state, parts = r[1], r[2]
if not state then
  return { '', 0 }
end
if not GOES_ON[state] or parts ~= ARGV[1] then
  return { state, tonumber(parts) }
end
redis.call('HINCRBY', KEYS[1], 'parts', 1)
redis.call('HINCRBY', KEYS[1], 'total', ARGV[2])
redis.call('HINCRBY', KEYS[1], 'chunks', ARGV[3])
redis.call('HSET', KEYS[1], 'updated_ms', now_ms())
if state == 'queued' then
  state = 'enqueuing'
  redis.call('HSET', KEYS[1], 'state', state)
end
return { state, tonumber(parts) + 1 }
