-- Takes or keeps a claim. KEYS  claim   ARGV  claimant, milliseconds. Returns 1 when it is the claimant's now.
-- One that has no end is no node's: it would keep everybody out for good.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] and redis.call('PTTL', KEYS[1]) > 0 then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
