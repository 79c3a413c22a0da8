-- Reads from a channel's history: the first entries after a position, or the newest ones. Makes no key but the seed, of
-- which there is one for many channels, and mends what was spoiled by hand.
-- KEYS  position, stream, seed
-- ARGV  new epoch, limit, most bytes (0 is any), offset to look up, [epoch and offset to read after]
-- Returns {epoch, offset, first offset's predecessor, id at the offset to look up, entries, whether there are more,
-- whether the position to read after is one of this history}.
local epoch, offset, start = position(KEYS[1], KEYS[2], ARGV[1])
local wanted, behind = ARGV[5], tonumber(ARGV[6] or '')

-- A Redis that takes no writes is read all the same: what it promises without a seed no append keeps, which has one.
local function seed_or_none()
  local is_there, seed = pcall(seed_at, KEYS[3], ARGV[1])
  return is_there and seed or ''
end

if not epoch then
  local seed, at = seed_or_none(), period()
  local is_same = behind == 0 and was_promised(seed, KEYS[2], wanted, at)
  return {is_same and wanted or promise(seed, KEYS[2], at), 0, 0, '', {}, 0, is_same and 1 or 0}
end

local function is_same()
  if wanted == epoch then
    return true
  end
  local found = redis.call('HMGET', KEYS[1], 'promised', 'former')
  local promised, former = tonumber(found[1] or ''), found[2] or ''
  if not wanted or not promised then
    return false
  end
  if string.find(' ' .. former, ' ' .. wanted .. ' ', 1, true) then
    return true
  end
  if behind ~= 0 then
    return false
  end
  local seed = seed_or_none()
  if seed == '' or not was_promised(seed, KEYS[2], wanted, promised) then
    return false
  end
  -- Promised in another period than the one in which the first message came. Members that were told it count on from
  -- there, and come back with it.
  if #former < 200 then
    redis.call('HSET', KEYS[1], 'former', former .. wanted .. ' ')
  end
  return true
end

local function entries(command, ...)
  local found = redis.pcall(command, KEYS[2], ...)
  if found and found.err and not found.err:find('WRONGTYPE') then
    return redis.call(command, KEYS[2], ...) -- refused, which must not look like a history without messages
  end
  return found and not found.err and found or {}
end

local limit, most = tonumber(ARGV[2]), tonumber(ARGV[3])

-- Reads in parts, so that no more is gathered than is wanted: `from` and `to` are the ends, `next` begins another part.
local function read(command, from, to, next)
  local found, size, is_full = {}, 0, false
  while #found < limit and not is_full do
    local count = most > 0 and math.min(32, limit - #found) or limit - #found
    local part = entries(command, from, to, 'COUNT', count)
    for _, entry in ipairs(part) do
      for i = 2, #entry[2], 2 do
        size = size + #entry[2][i]
      end
      if most > 0 and size > most and #found > 0 then
        is_full = true
        break
      end
      found[#found + 1] = entry
    end
    if #part < count then
      return found, is_full
    end
    from = next(part[#part][1])
  end
  return found, true
end

local same = is_same()
local seen = entries('XRANGE', ARGV[4], ARGV[4], 'COUNT', 1)[1]
local found, more
if wanted then
  local after = same and math.min(behind, offset) or start -- not 1e+18, which is no id
  found, more = read('XRANGE', after + 1, offset, function(id) return '(' .. id end)
else
  found = read('XREVRANGE', offset, '-', function(id) return '(' .. id end)
  more = false
end
return {epoch, offset, start, seen and seen[1] or '', found, more and 1 or 0, same and 1 or 0}
