-- Takes a node's lease, unless another process holds it.
-- KEYS  node   ARGV  incarnation, seconds, the incarnation of a process that is known to have ended, fields and values
-- Returns 1 when it is taken. A lease without an end was put there by hand. The hash is made anew: nothing old stays.
local holder = redis.call('HGET', KEYS[1], 'incarnation')
if holder and holder ~= ARGV[1] and holder ~= ARGV[3] and redis.call('PTTL', KEYS[1]) > 0 then
  return 0
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'incarnation', ARGV[1], unpack(ARGV, 4))
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
