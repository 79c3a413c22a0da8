-- Where a channel's history stands. It outlives the messages, so that an epoch holds while they may come back.
-- Made anew when it is gone: what is left of the stream then belongs to nobody's epoch.
local LIFETIME = 30 * 24 * 3600

local function position(key, stream, new_epoch)
  local found = redis.pcall('HMGET', key, 'epoch', 'offset', 'start')
  local offset = not found.err and tonumber(found[2])
  if offset and found[1] then
    return found[1], offset, tonumber(found[3] or 0)
  end
  redis.call('DEL', key, stream)
  redis.call('HSET', key, 'epoch', new_epoch, 'offset', 0)
  redis.call('EXPIRE', key, LIFETIME)
  return new_epoch, 0, 0
end
