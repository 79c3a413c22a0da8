-- Counts a connection to its user, unless the user has as many as may be; then writes it, where all keys are at hand.
-- KEYS  user's connections, [users, connection, node's connections, nodes]
-- ARGV  most, connection, [node, user, then the fields and values of its hash]
-- Returns 1 when the user may have it, 0 when not.
if redis.call('SISMEMBER', KEYS[1], ARGV[2]) == 0 and redis.call('SCARD', KEYS[1]) >= tonumber(ARGV[1]) then
  return 0
end
redis.call('SADD', KEYS[1], ARGV[2])
if KEYS[2] then
  redis.call('SADD', KEYS[2], ARGV[4])
  redis.call('HSET', KEYS[3], unpack(ARGV, 5))
  redis.call('SADD', KEYS[4], ARGV[2])
  redis.call('SADD', KEYS[5], ARGV[3])
end
return 1
