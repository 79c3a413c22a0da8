#!/bin/sh
# The job's command: the first half of the servers become masters, each of the others the replica of one. A cluster that
# is there stays as it is, whoever is master by now; what was left half done is completed.
set -eu

ask() {
    server=$1
    shift
    redis-cli -e -h "$server" "$@"
}
figure() { ask "$1" CLUSTER INFO | tr -d '\r' | sed -n "s/^cluster_$2://p"; }
knows_all() { [ "$(figure "$1" known_nodes)" = "$2" ] && ! ask "$1" CLUSTER NODES | grep -q handshake; }

# shellcheck disable=SC2046 # names, one a line
set -- $(cat "${0%/*}/peers")
for host; do
    until ask "$host" PING; do sleep 1; done
done
for host; do
    if [ "$(figure "$host" slots_assigned)" = 16384 ]; then
        echo "$host knows a cluster"
        exit 0
    fi
done

for host; do
    [ "$host" = "$1" ] || ask "$1" CLUSTER MEET "$(ask "$host" CONFIG GET cluster-announce-ip | tail -n 1)" 6379
done
for host; do
    until knows_all "$host" $#; do sleep 0.2; done
done

masters=$(($# / 2)) number=0 ids=
for host; do
    if [ $number -lt $masters ]; then
        ids="$ids$(ask "$host" CLUSTER MYID) "
        ask "$host" CLUSTER ADDSLOTSRANGE $((16384 * number / masters)) $((16384 * (number + 1) / masters - 1)) ||
            echo "$host has its slots"
    else
        ask "$host" CLUSTER REPLICATE "${ids%% *}"
        ids=${ids#* }
    fi
    number=$((number + 1))
done
for host; do
    until [ "$(figure "$host" state)" = ok ]; do sleep 0.2; done
done
echo "made a cluster of $#"
