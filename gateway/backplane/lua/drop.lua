-- Gives up a history, unless somebody has written to it meanwhile: whoever comes back to it is told of a gap.
-- KEYS  position, stream
-- ARGV  new epoch, offset of its last message
-- The position stays for two periods, until its epoch cannot be promised again: before that a new history would begin in
-- the epoch of the one that is dropped. Returns whether anything was dropped.
local _, offset = position(KEYS[1], KEYS[2], ARGV[1])
if offset ~= tonumber(ARGV[2]) then
  return 0
end
redis.call('EXPIRE', KEYS[1], 2 * PERIOD)
return redis.call('DEL', KEYS[2])
