#!/bin/sh
# Whether the cluster is whole and, in a replica, the master's data are here. An update waits for it at each pod.
redis-cli CLUSTER INFO | grep -q '^cluster_state:ok' || exit 1
! redis-cli INFO replication | grep -q '^master_link_status:down'
