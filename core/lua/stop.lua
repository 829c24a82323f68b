-- Give a job up: nothing more is claimed, chunks in hand end, then it is finalized.
-- KEYS record, owners   ARGV ending state, reason
-- Returns {state after, 1 if it waits for nothing more}.
local state = redis.call('HGET', KEYS[1], 'state')
if not state then
  return { '', 0 }
end
if GOES_ON[state] then
  redis.call('HSET', KEYS[1], 'state', 'cancelling', 'ending', ARGV[1], 'reason', ARGV[2],
    'updated_ms', now_ms())
  return { 'cancelling', settle(KEYS[1], KEYS[2]) }
end
return { state, 0 }
