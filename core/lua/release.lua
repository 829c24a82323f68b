-- Give a lease back without an outcome: by its owner, or by anyone once it has expired.
-- KEYS record, owners, leases, attempts
-- ARGV chunk, lease member, owner's token or '' for an expired lease, 1 to forget the attempt
-- Returns {1 if the lease was there to give back, 1 if the job waits for nothing more}.
local chunk, token = ARGV[1], ARGV[3]
if token == '' then
  local expiry = redis.call('ZSCORE', KEYS[3], ARGV[2])
  if not expiry or tonumber(expiry) > now_ms() then
    return { 0, 0 }
  end
elseif redis.call('HGET', KEYS[2], chunk) ~= token then
  return { 0, 0 }
end
redis.call('ZREM', KEYS[3], ARGV[2])
redis.call('HDEL', KEYS[2], chunk)
if ARGV[4] == '1' then
  if redis.call('HINCRBY', KEYS[4], chunk, -1) < 0 then
    redis.call('HSET', KEYS[4], chunk, 0)
  end
end
return { 1, settle(KEYS[1], KEYS[2]) }
