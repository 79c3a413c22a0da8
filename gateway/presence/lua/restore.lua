-- Writes a connection and its memberships again, all at once and in silence: nobody came.
-- KEYS  connection, node's connections, nodes, channels, user's connections, users (the last two left alone for an
--       anonymous one, whose user is itself), then members, online, tabs and leaving of each of its channels
-- ARGV  connection, node, user, how many channels, the channels, then the fields and values of its hash
local id, user, number = ARGV[1], ARGV[3], tonumber(ARGV[4])
redis.call('HSET', KEYS[1], unpack(ARGV, 5 + number))
redis.call('SADD', KEYS[2], id)
redis.call('SADD', KEYS[3], ARGV[2])
if user ~= id then
  redis.call('SADD', KEYS[5], id)
  redis.call('SADD', KEYS[6], user)
end
for i = 1, number do
  local key = 3 + 4 * i
  redis.call('SADD', KEYS[4], ARGV[4 + i])
  local is_new = redis.call('SADD', KEYS[key], id) == 1
  local has_others = redis.call('SADD', KEYS[key + 1], user) == 0
  if is_new and has_others then
    count(KEYS[key + 2], user, 1)
  elseif is_new then
    redis.call('ZREM', KEYS[key + 3], user)
  end
end
return number
