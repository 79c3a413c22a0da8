#!/bin/sh
# The container's command. The password comes by standard input: a command line can be read by others.
exec redis-server "${0%/*}/redis.conf" --cluster-announce-ip "$POD_IP" - <<END
requirepass "$REDIS_PASSWORD"
masterauth "$REDIS_PASSWORD"
END
