-- Takes a connection out of a channel; tells the others when it was its user's last connection there.
-- KEYS  members, online, tabs, [channels]
-- ARGV  connection, user, channel, topic, announcement, presence_max
-- Returns {whether this emptied the channel, whether the online count is to be published instead}.
if redis.call('SREM', KEYS[1], ARGV[1]) == 0 then
  return {0, 0}
end
local emptied = redis.call('EXISTS', KEYS[1]) == 0 and 1 or 0
if emptied == 1 and KEYS[4] then
  redis.call('SREM', KEYS[4], ARGV[3])
end
local tabs = redis.call('HGET', KEYS[3], ARGV[2])
if tabs then
  if redis.call('HINCRBY', KEYS[3], ARGV[2], -1) <= 0 then
    redis.call('HDEL', KEYS[3], ARGV[2])
  end
  return {emptied, 0}
end
redis.call('SREM', KEYS[2], ARGV[2])
local most = tonumber(ARGV[6])
if most > 0 and redis.call('SCARD', KEYS[2]) >= most then
  return {emptied, 1}
end
redis.call('PUBLISH', ARGV[4], ARGV[5])
return {emptied, 0}
