-- Announces the users whose grace is over; whoever came back meanwhile is no longer in `leaving`.
-- KEYS  leaving, [leaving channels]   ARGV  publish command, topic, channel, then user and announcement, in pairs
-- Returns when the next one's grace ends, 0 when nobody is left.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- Looked at again, since the caller has looked: another node may have announced it, or the user is back, or has left anew.
for i = 4, #ARGV, 2 do
  local ends = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if ends and tonumber(ends) <= now then
    redis.call('ZREM', KEYS[1], ARGV[i])
    redis.call(ARGV[1], ARGV[2], ARGV[i + 1])
  end
end
local next = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if KEYS[2] and next[2] then
  redis.call('ZADD', KEYS[2], next[2], ARGV[3])
elseif KEYS[2] then
  redis.call('ZREM', KEYS[2], ARGV[3])
end
return next[2] or '0'
