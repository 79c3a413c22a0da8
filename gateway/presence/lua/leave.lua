-- Takes a connection out of a channel; tells the others when it was its user's last connection there.
-- An empty announcement stays silent. With a grace the announcement waits, in `leaving`, for the user to come back.
-- Returns {whether the channel was emptied, whether to publish its count, when the grace ends}; of somebody who was
-- not there also whether the channel is empty.

-- Of the channel; then, where one server has all keys, of all channels, of the connection and of those who may be back.
local members, online, tabs, leaving, all_channels, connection, leaving_channels = unpack(KEYS)
-- As join.lua has them, but for the last two. `channels` are those of the connection, as JSON, '' when it is gone.
local id, user, channel, channels, publish, topic, announcement, presence_max, grace, kept = unpack(ARGV)
-- In ms; `kept` is how long a farewell stands after its grace, where no node is left that would announce it.
grace, kept = tonumber(grace), tonumber(kept)

if connection and channels ~= '' and redis.call('EXISTS', connection) == 1 then
  redis.call('HSET', connection, 'channels', channels)
end
if redis.call('SREM', members, id) == 0 then
  -- It was there before, perhaps, and the answer was lost with its link: what must follow on other masters is told again.
  local ends = tonumber(grace > 0 and redis.call('ZSCORE', leaving, user) or 0)
  return {0, 0, math.max(0, math.min(ends, 2 ^ 53)), redis.call('EXISTS', members) == 0 and 1 or 0}
end
local emptied = redis.call('EXISTS', members) == 0 and 1 or 0
if emptied == 1 and all_channels then
  redis.call('SREM', all_channels, channel)
end
if redis.call('HEXISTS', tabs, user) == 1 then
  if count(tabs, user, -1) <= 0 then
    redis.call('HDEL', tabs, user)
  end
  return {emptied, 0, 0}
end
redis.call('SREM', online, user)
if announcement == '' then
  return {emptied, 0, 0}
end
-- The same bound as in join.lua, which counts the one who comes: here that one is out already.
local most = tonumber(presence_max)
if most > 0 and redis.call('SCARD', online) >= most then
  return {emptied, 1, 0}
end
if grace == 0 then
  redis.call(publish, topic, announcement)
  return {emptied, 0, 0}
end
local time = redis.call('TIME')
local ends = time[1] * 1000 + math.floor(time[2] / 1000) + grace
local forgotten = ends + kept
redis.call('ZADD', leaving, ends, user)
redis.call('PEXPIREAT', leaving, forgotten)
if leaving_channels then
  redis.call('ZADD', leaving_channels, 'LT', ends, channel)
  redis.call('PEXPIREAT', leaving_channels, forgotten)
end
return {emptied, 0, ends}
