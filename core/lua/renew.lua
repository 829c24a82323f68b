-- One heartbeat: renew a process's leases on one queue and its place in the fleet.
-- KEYS leases, fleet, owners, …   ARGV lease ms, fleet member, lease member, chunk, token, …
-- Owners go with the lease triples, in order. A lease that is another's by now is left alone.
-- Removing comes first: a script that has removed something may write although Redis is full,
-- and whoever is alive must keep its leases.
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now_ms())
local expiry = now_ms() + tonumber(ARGV[1])
for i = 3, #KEYS do
  local a = 3 * (i - 3) + 3
  if redis.call('HGET', KEYS[i], ARGV[a + 1]) == ARGV[a + 2] then
    redis.call('ZADD', KEYS[1], 'XX', expiry, ARGV[a])
  end
end
redis.call('ZADD', KEYS[2], expiry, ARGV[2])
