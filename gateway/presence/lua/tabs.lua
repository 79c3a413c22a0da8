-- How many connections beside the first a user has in a channel; what is no number counts as none.
local function count(key, user, by)
  local counted = redis.pcall('HINCRBY', key, user, by)
  if type(counted) == 'table' and not string.find(counted.err, 'WRONGTYPE') then
    redis.call('HSET', key, user, math.max(by, 0))
    return math.max(by, 0)
  end
  return type(counted) == 'number' and counted or error(counted.err)
end
