-- Where a channel's history stands: a key that is made with the first message, by nobody who only reads. It outlives
-- the messages for a while, so that an epoch holds while they may come back, and so that the next message of a channel
-- that was quiet for long is no new beginning, which its members would have to be told as a gap.
local LINGER = 24 * 3600

-- Before its first message a channel has an epoch all the same, for whoever may come back: it follows from the name, the
-- half hour and a seed, so that all nodes promise the same one without a key for each, and the first message keeps that
-- promise. The seed is lost with the data: what is written to an emptied Redis has another epoch than what was lost,
-- whoever writes it. It stays for good, since in a cluster whose slots move a call with a key that is not there waits.
local PERIOD = 1800

-- Returns the seed; where there is none, or somebody has overwritten it, one is made of what was drawn at random. Fails
-- where it cannot be read, or written.
local function seed_at(key, random)
  local found = redis.pcall('GET', key)
  if type(found) == 'table' and not found.err:find('WRONGTYPE') then
    found = redis.call('GET', key) -- refused: that says nothing of what is kept
  end
  if type(found) == 'string' and #found == 12 and string.find(found, '^%x+$') then
    return found
  end
  -- The time as well: a call whose answer was lost is sent again, maybe to a Redis that was emptied since.
  local now = redis.call('TIME')
  local seed = string.sub(redis.sha1hex(random .. ' ' .. now[1] .. ' ' .. now[2]), 1, 12)
  redis.call('SET', key, seed)
  return seed
end

local function period()
  return math.floor(redis.call('TIME')[1] / PERIOD)
end

local function promise(seed, stream, at)
  return string.sub(redis.sha1hex(seed .. ' ' .. stream .. ' ' .. at), 1, 12)
end

-- Tells whether an epoch was promised within the time that any history lasts at least, up to a period: no other one
-- can have begun and ended since, so that whoever was promised it has missed nothing before the first message.
local function was_promised(seed, stream, epoch, last)
  for at = last, last - LINGER / PERIOD + 1, -1 do
    if promise(seed, stream, at) == epoch then
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
