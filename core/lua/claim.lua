-- May this worker run this chunk now? On OK and POISON it holds a lease afterwards.
-- KEYS record, done, attempts, owners, leases
-- ARGV chunk, lease member, token, lease ms, max attempts, model version, model digest
-- Returns {answer, attempt}.
local chunk, member, token = ARGV[1], ARGV[2], ARGV[3]
local state = judge(KEYS[1])
local r = redis.call('HMGET', KEYS[1], 'state', 'chunks', 'version', 'digest', 'ending')
if not state or tonumber(chunk) >= tonumber(r[2]) then
  return { 'UNKNOWN', 0 }
end
if state == 'cancelling' or state == 'cancelled' or state == 'expired' then
  return { (state == 'expired' or r[5] == 'expired') and 'EXPIRED' or 'CANCELLED', 0 }
end
if state == 'paused' then
  return { 'PAUSED', 0 }
end
if not TAKES_WORK[state] or redis.call('GETBIT', KEYS[2], chunk) == 1 then
  return { 'DONE', 0 }
end
if (r[3] ~= '' and r[3] ~= ARGV[6]) or (r[4] ~= '' and r[4] ~= ARGV[7]) then
  return { 'WRONG_MODEL', 0 }
end
local now = now_ms()
local lease = redis.call('ZSCORE', KEYS[5], member)
local owner = redis.call('HGET', KEYS[4], chunk)
-- The same token again is this very claim, retried because its answer was lost.
if lease and tonumber(lease) > now and owner ~= token then
  return { 'BUSY', 0 }
end
local attempt
if owner == token then
  attempt = tonumber(redis.call('HGET', KEYS[3], chunk))
else
  attempt = redis.call('HINCRBY', KEYS[3], chunk, 1)
end
redis.call('ZADD', KEYS[5], now + tonumber(ARGV[4]), member)
redis.call('HSET', KEYS[4], chunk, token)
-- The first claim pins the model, so that one job is never answered by two.
redis.call('HSET', KEYS[1], 'version', ARGV[6], 'digest', ARGV[7], 'updated_ms', now)
if state ~= 'running' then
  redis.call('HSET', KEYS[1], 'state', 'running')
end
redis.call('HSETNX', KEYS[1], 'started_ms', now)
return { attempt > tonumber(ARGV[5]) and 'POISON' or 'OK', attempt }
