#!/bin/sh
# After the start: a pod comes back at another address, which it tells all others. One that was alone restarted would
# be found anyway; when all were, each knows old addresses only.
until [ "$(redis-cli PING)" = PONG ]; do sleep 0.2; done
while read -r host; do
    address=$(timeout 2 redis-cli -h "$host" CONFIG GET cluster-announce-ip </dev/null | tail -n 1)
    [ -z "$address" ] || [ "$address" = "$POD_IP" ] || redis-cli CLUSTER MEET "$address" 6379 </dev/null
done <"${0%/*}/peers"
exit 0
