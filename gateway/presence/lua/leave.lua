-- Takes a connection out of a channel; tells the others when it was its user's last connection there.
-- KEYS  members, online, tabs, leaving, [channels, connection, leaving channels]
-- ARGV  connection, user, channel, its channels as JSON ('' when the connection is gone), publish command,
--       topic, announcement, presence_max, grace (ms), node (unused), after how long a farewell is dropped (ms)
-- An empty announcement stays silent. With a grace the announcement waits, in `leaving`, for the user to come back.
-- Returns {whether the channel was emptied, whether to publish its count, when the grace ends}.
local id, user, channel, grace = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[9])
if KEYS[6] and ARGV[4] ~= '' and redis.call('EXISTS', KEYS[6]) == 1 then
  redis.call('HSET', KEYS[6], 'channels', ARGV[4])
end
if redis.call('SREM', KEYS[1], id) == 0 then
  return {0, 0, 0}
end
local emptied = redis.call('EXISTS', KEYS[1]) == 0 and 1 or 0
if emptied == 1 and KEYS[5] then
  redis.call('SREM', KEYS[5], channel)
end
if redis.call('HEXISTS', KEYS[3], user) == 1 then
  if count(KEYS[3], user, -1) <= 0 then
    redis.call('HDEL', KEYS[3], user)
  end
  return {emptied, 0, 0}
end
redis.call('SREM', KEYS[2], user)
if ARGV[7] == '' then
  return {emptied, 0, 0}
end
local most = tonumber(ARGV[8])
if most > 0 and redis.call('SCARD', KEYS[2]) >= most then
  return {emptied, 1, 0}
end
if grace == 0 then
  redis.call(ARGV[5], ARGV[6], ARGV[7])
  return {emptied, 0, 0}
end
local time = redis.call('TIME')
local ends = time[1] * 1000 + math.floor(time[2] / 1000) + grace
local forgotten = ends + tonumber(ARGV[11])
redis.call('ZADD', KEYS[4], ends, user)
redis.call('PEXPIREAT', KEYS[4], forgotten)
if KEYS[7] then
  redis.call('ZADD', KEYS[7], 'LT', ends, channel)
  redis.call('PEXPIREAT', KEYS[7], forgotten)
end
return {emptied, 0, ends}
