-- Puts a connection in a channel; tells the others when it is its user's first connection there.
-- The connection is written, too, for whoever cleans up: Redis may have lost it since it was opened.
-- An empty announcement stays silent. Returns {whether the channel was created, whether to publish its count}.

-- Of the channel; then, where one server has all keys, of all channels, of the connection and of its node.
local members, online, tabs, leaving, all_channels, connection, node_connections, nodes = unpack(KEYS)
-- As leave.lua has them, but for the last. `channels` are those of the connection, as JSON.
local id, user, channel, channels, publish, topic, announcement, presence_max, node = unpack(ARGV)

if connection then
  redis.call('HSET', connection, 'node', node, 'user', user, 'channels', channels)
  redis.call('SADD', node_connections, id)
  redis.call('SADD', nodes, node)
end
if all_channels then
  redis.call('SADD', all_channels, channel)
end
-- A member already: this was sent again, or is only written again. Nobody came, but Redis may have lost the user.
if redis.call('SADD', members, id) == 0 then
  redis.call('SADD', online, user)
  return {0, 0}
end
local created = redis.call('SCARD', members) == 1 and 1 or 0
-- Whoever comes back within the grace was never announced as gone, and is not announced as new.
local back = redis.call('ZREM', leaving, user)
if redis.call('SADD', online, user) == 0 then
  count(tabs, user, 1)
  return {created, 0}
end
if back == 1 or announcement == '' then
  return {created, 0}
end
local most = tonumber(presence_max)
if most > 0 and redis.call('SCARD', online) > most then
  return {created, 1}
end
redis.call(publish, topic, announcement)
return {created, 0}
