-- Where a channel's history stands: a key that is made with the first message, by nobody who only reads. It outlives
-- the messages for a while, so that an epoch holds while they may come back, and so that the next message of a channel
-- that was quiet for long is no new beginning, which its members would have to be told as a gap.
local LINGER = 24 * 3600

-- Before its first message a channel has an epoch all the same, for whoever may come back: it follows from the name and
-- the half hour, so that all nodes promise the same one without a key, and the first message keeps that promise.
local PERIOD = 1800

local function period()
  return math.floor(redis.call('TIME')[1] / PERIOD)
end

local function promise(stream, at)
  return string.sub(redis.sha1hex(stream .. ' ' .. at), 1, 12)
end

-- Tells whether an epoch was promised within the time that any history lasts at least, up to a period: no other one
-- can have begun and ended since, so that whoever was promised it has missed nothing before the first message.
local function was_promised(stream, epoch, last)
  for at = last, last - LINGER / PERIOD + 1, -1 do
    if promise(stream, at) == epoch then
      return true
    end
  end
  return false
end

-- Returns epoch, offset, start and bytes; nothing where there is no position, or none that can be one.
local function position(key)
  local found = redis.pcall('HMGET', key, 'epoch', 'offset', 'start', 'bytes')
  local offset = not found.err and found[1] and tonumber(found[2] or '')
  if offset and offset >= 0 and offset < 2 ^ 53 and offset == math.floor(offset) then
    return found[1], offset, tonumber(found[3] or '') or 0, tonumber(found[4] or '') or 0
  end
end
