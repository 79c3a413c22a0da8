-- Ends an epoch, if it is the present one: the messages behind an offset are not those that had its offsets before.
-- KEYS  position, stream
-- ARGV  new epoch, epoch that ends, offset
if position(KEYS[1], KEYS[2], ARGV[1]) == ARGV[2] then
  -- Promises made for the epoch that ends are void: whoever comes back with one is to be told of the gap.
  redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'start', ARGV[3])
  redis.call('HDEL', KEYS[1], 'promised', 'former')
end
