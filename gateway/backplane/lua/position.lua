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

-- Numbers of 13 digits at most, which Lua writes out in full: with more an id would read 1e+14.
local function counted(text)
  return type(text) == 'string' and #text <= 13 and string.find(text, '^%d+$') and tonumber(text)
end

local function is_epoch(text)
  return type(text) == 'string' and #text <= 64 and string.find(text, '^[%w-]+$')
end

-- A hand has been at it: a new epoch begins behind the newest message that a node can have written, and leaves room
-- for those to come. What the messages take is not added up, so that they may take twice as much for a while.
local function mended(key, stream, new_epoch)
  local newest = redis.pcall('XREVRANGE', stream, '999999999999', '-', 'COUNT', 1)
  if newest.err then
    redis.call('DEL', stream)
    newest = {}
  end
  local offset = newest[1] and counted(string.match(newest[1][1], '^%d+')) or 0
  redis.call('DEL', key)
  redis.call('HSET', key, 'epoch', new_epoch, 'offset', offset, 'start', offset)
  local ttl = redis.call('PTTL', stream)
  if ttl ~= -1 then
    redis.call('EXPIRE', key, math.ceil(math.max(ttl, 0) / 1000) + LINGER)
  end
  return new_epoch, offset, offset, 0
end

-- Returns epoch, offset, start and bytes; nothing where there is no position.
local function position(key, stream, new_epoch)
  local found = redis.pcall('HMGET', key, 'epoch', 'offset', 'start', 'bytes')
  if found.err and not found.err:find('WRONGTYPE') then
    found = redis.call('HMGET', key, 'epoch', 'offset', 'start', 'bytes') -- refused: that says nothing of what is kept
  end
  if found.err then
    return mended(key, stream, new_epoch)
  end
  if not found[1] and not found[2] then
    return
  end
  local offset, start = counted(found[2]), counted(found[3] or '0')
  if is_epoch(found[1]) and offset and start and start <= offset then
    return found[1], offset, start, counted(found[4] or '0') or 0
  end
  return mended(key, stream, new_epoch)
end
