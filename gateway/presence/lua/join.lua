-- Puts a connection in a channel; tells the others when it is its user's first connection there.
-- KEYS  members, online, tabs, leaving, [channels, connection, node's connections, nodes]
-- ARGV  connection, user, channel, its channels as JSON, publish command, topic, announcement, presence_max,
--       grace (unused), node
-- The connection is written, too, for whoever cleans up: Redis may have lost it since it was opened.
-- An empty announcement stays silent. Returns {whether the channel was created, whether to publish its count}.
local id, user, channel = ARGV[1], ARGV[2], ARGV[3]
if KEYS[6] then
  redis.call('HSET', KEYS[6], 'node', ARGV[10], 'user', user, 'channels', ARGV[4])
  redis.call('SADD', KEYS[7], id)
  redis.call('SADD', KEYS[8], ARGV[10])
end
if KEYS[5] then
  redis.call('SADD', KEYS[5], channel)
end
if redis.call('SADD', KEYS[1], id) == 0 then
  redis.call('SADD', KEYS[2], user)
  return {0, 0}
end
local created = redis.call('SCARD', KEYS[1]) == 1 and 1 or 0
local back = redis.call('ZREM', KEYS[4], user)
if redis.call('SADD', KEYS[2], user) == 0 then
  count(KEYS[3], user, 1)
  return {created, 0}
end
if back == 1 or ARGV[7] == '' then
  return {created, 0}
end
local most = tonumber(ARGV[8])
if most > 0 and redis.call('SCARD', KEYS[2]) > most then
  return {created, 1}
end
redis.call(ARGV[5], ARGV[6], ARGV[7])
return {created, 0}
