-- Puts a connection in a channel; tells the others when it is its user's first connection there.
-- KEYS  members, online, tabs, [channels]
-- ARGV  connection, user, channel, topic, announcement, presence_max
-- Returns {whether this created the channel, whether the online count is to be published instead}.
if redis.call('SADD', KEYS[1], ARGV[1]) == 0 then
  return {0, 0}
end
local created = redis.call('SCARD', KEYS[1]) == 1 and 1 or 0
if created == 1 and KEYS[4] then
  redis.call('SADD', KEYS[4], ARGV[3])
end
if redis.call('SADD', KEYS[2], ARGV[2]) == 0 then
  redis.call('HINCRBY', KEYS[3], ARGV[2], 1)
  return {created, 0}
end
local most = tonumber(ARGV[6])
if most > 0 and redis.call('SCARD', KEYS[2]) > most then
  return {created, 1}
end
redis.call('PUBLISH', ARGV[4], ARGV[5])
return {created, 0}
