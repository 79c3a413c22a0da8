-- Renews a node's lease, if it still has one of its own. Where another process of the same name has it, says so there.
-- KEYS  node, rival, [nodes]   ARGV  incarnation, seconds, node id, then fields and values
-- Returns 1 when renewed, 2 when renewed while another process of the same name lives, 0 when the lease is gone,
-- -1 when another process of the same name holds it.
local holder = redis.call('HGET', KEYS[1], 'incarnation')
if not holder or redis.call('PTTL', KEYS[1]) < 0 then -- one that has no end is no node's
  return 0
end
if holder ~= ARGV[1] then
  redis.call('SET', KEYS[2], ARGV[1], 'EX', ARGV[2])
  return -1
end
redis.call('HSET', KEYS[1], unpack(ARGV, 4))
redis.call('EXPIRE', KEYS[1], ARGV[2])
if KEYS[3] then
  redis.call('SADD', KEYS[3], ARGV[3])
end
local rival = redis.call('GET', KEYS[2])
if rival == ARGV[1] or redis.call('PTTL', KEYS[2]) < 0 then
  redis.call('DEL', KEYS[2]) -- it was this process, before it had the lease; or it was put there by hand
  rival = false
end
return rival and 2 or 1
