-- Listing is complete: the total is final.
-- KEYS record, owners
-- Returns 1 if that left nothing to wait for.
local state = redis.call('HGET', KEYS[1], 'state')
if not state then
  return 0
end
redis.call('HSET', KEYS[1], 'listing_complete', 1, 'updated_ms', now_ms())
if state == 'enqueuing' then
  redis.call('HSET', KEYS[1], 'state', 'running')
end
return settle(KEYS[1], KEYS[2])
