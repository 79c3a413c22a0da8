-- Renews a node's lease, if it still has one of its own.
-- KEYS  node, [nodes]   ARGV  incarnation, seconds, node id, then fields and values
-- Returns 1 when renewed, 0 when the lease is gone, -1 when another process of the same name holds it.
local holder = redis.call('HGET', KEYS[1], 'incarnation')
if not holder then
  return 0
end
if holder ~= ARGV[1] then
  return -1
end
redis.call('HSET', KEYS[1], unpack(ARGV, 4))
redis.call('EXPIRE', KEYS[1], ARGV[2])
if KEYS[2] then
  redis.call('SADD', KEYS[2], ARGV[3])
end
return 1
