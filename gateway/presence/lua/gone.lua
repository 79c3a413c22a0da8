-- Announces the users whose grace is over; whoever came back meanwhile is no longer in `leaving`.
-- KEYS  leaving   ARGV  publish command, topic, then user and announcement, in pairs
-- Returns when the next one's grace ends, 0 when nobody is left.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i = 3, #ARGV, 2 do
  local ends = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if ends and tonumber(ends) <= now then
    redis.call('ZREM', KEYS[1], ARGV[i])
    redis.call(ARGV[1], ARGV[2], ARGV[i + 1])
  end
end
local next = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
return next[2] or '0'
