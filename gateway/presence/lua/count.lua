-- Counts a channel's online users, when that is to be told: once a second at most, by one node for all.
-- KEYS  counted, online   ARGV  how long ago (ms) the asking node heard of a change
-- Returns the count, -1 when it was told less than a second ago, but before the change, -2 when it was told since.
-- In ms: for so long it is known when the count was told, which is longer than a node takes from a change to its next round.
local kept = 3000
local left = redis.call('PTTL', KEYS[1])
if left > 0 and kept - left < tonumber(ARGV[1]) then
  return -2
end
if left > kept - 1000 then
  return -1
end
redis.call('SET', KEYS[1], 1, 'PX', kept)
return redis.call('SCARD', KEYS[2])
