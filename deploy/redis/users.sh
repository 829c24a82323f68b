#!/bin/sh
# Prints Redis's ACL file: who may do what. Redis 6.2 or later; `aclfile` in redis.conf loads it.
#
#   export REDIS_ADMIN_PASSWORD=… REDIS_PRODUCER_PASSWORD=… REDIS_WORKER_PASSWORD=…
#   sh deploy/redis/users.sh > deploy/redis/users.acl
#
# The file holds hashes of the passwords, never themselves. Producers and workers then use
#
#   MILLRACE_REDIS_URL=rediss://millrace-producer:PASSWORD@HOST:6379/0
#   MILLRACE_REDIS_URL=rediss://millrace-worker:PASSWORD@HOST:6379/0
#
# tests/integration/test_redis_acl.py runs whole jobs, and what each role may not do, against it.
set -eu

hash() {
    printf '%s' "$1" | sha256sum | cut -d ' ' -f 1
}
admin=$(hash "${REDIS_ADMIN_PASSWORD:?is not set}")
producer=$(hash "${REDIS_PRODUCER_PASSWORD:?is not set}")
worker=$(hash "${REDIS_WORKER_PASSWORD:?is not set}")

# Data commands, whole types at a time where the keys bound them well enough, so that a newer
# Celery or redis-py finds what it needs. Of those about keys only what is used: SCAN, RANDOMKEY
# and DBSIZE look past the key patterns. A script runs with its caller's rights, so EVALSHA adds
# none.
data='+@hash +@sortedset +@string +@bitmap +@transaction +@connection'
data="$data +del +exists +pexpire +time +evalsha +script|load"
# After whatever was granted: SORT, for one, is a command of lists and reads any key.
# `client|setname` is for Redis 6.2; later ones have it in @connection.
never='-@blocking -@admin -@dangerous +client|setname'

# A job's own keys, its queue, and what both roles look after.
keys='~millrace.* ~millrace:{*}:* ~millrace:active:* ~millrace:leases:*'
keys="$keys ~millrace:fleet:* ~millrace:workers ~millrace:worker:*"

# Producers make and delete jobs: the index of jobs is theirs, and what HTTP servers, which are
# producers, have promised. They send messages, take none.
# `info` is for `millrace doctor`.
producer_may="$keys ~millrace:jobs ~millrace:duties $data +@set +lpush +rpush +lrange +llen +unlink $never +info"
# Workers take messages, reconcile and keep their place in the fleet; they make no jobs.
worker_may="$keys ~millrace:reconciler:* $data +srem +smembers +@list +expire $never +brpop"

cat <<END
user default reset off
user admin reset on #$admin ~* &* +@all
user millrace-producer reset on #$producer resetchannels $producer_may
user millrace-worker reset on #$worker resetchannels $worker_may
END
