-- Ends a node's lease, if it is still this process's. KEYS  node, rival   ARGV  incarnation
-- Returns 1 when no other process of the same name holds it.
if redis.call('GET', KEYS[2]) == ARGV[1] then
  redis.call('DEL', KEYS[2])
end
local holder = redis.call('HGET', KEYS[1], 'incarnation')
if holder and holder ~= ARGV[1] then
  return 0
end
redis.call('DEL', KEYS[1])
return 1
