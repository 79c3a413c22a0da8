#!/bin/sh
# Before the end: a master hands its slots to its replica, so that nothing that was written is lost.
redis-cli ROLE | grep -q '^master' || exit 0
replica=$(redis-cli CLUSTER REPLICAS "$(redis-cli CLUSTER MYID)" | grep -v fail | head -n 1 | cut -d ' ' -f 2)
replica=${replica%@*}
[ -n "$replica" ] || exit 0
redis-cli -h "${replica%:*}" -p "${replica##*:}" CLUSTER FAILOVER
for _ in $(seq 100); do
    redis-cli ROLE | grep -q '^slave' && break
    sleep 0.1
done
exit 0
