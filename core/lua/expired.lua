-- The leases on one queue that have run out.
-- KEYS leases   ARGV limit
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now_ms(), 'LIMIT', 0, ARGV[1])
