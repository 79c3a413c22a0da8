-- Writes a connection. KEYS  connection, node's connections, nodes, [user's connections, users]
-- ARGV  connection, node, user, then the fields and values of its hash
redis.call('HSET', KEYS[1], unpack(ARGV, 4))
redis.call('SADD', KEYS[2], ARGV[1])
redis.call('SADD', KEYS[3], ARGV[2])
if KEYS[4] then
  redis.call('SADD', KEYS[4], ARGV[1])
  redis.call('SADD', KEYS[5], ARGV[3])
end
return 1
