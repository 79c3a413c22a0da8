-- Reads from a channel's history: the first entries after a position, or the newest ones.
-- KEYS  position, stream
-- ARGV  new epoch, limit, offset to look up, [epoch and offset to read after]
-- Returns {epoch, offset, first offset's predecessor, id at the offset to look up, entries}.
local epoch, offset, start = position(KEYS[1], KEYS[2], ARGV[1])

local function entries(command, ...)
  local found = redis.pcall(command, KEYS[2], ...)
  return found and not found.err and found or {}
end

local seen = entries('XRANGE', ARGV[3], ARGV[3], 'COUNT', 1)[1]
local found
if ARGV[4] then
  local after = ARGV[4] == epoch and tonumber(ARGV[5]) or start
  found = entries('XRANGE', after + 1, offset, 'COUNT', ARGV[2])
else
  found = entries('XREVRANGE', offset, '-', 'COUNT', ARGV[2])
end
return {epoch, offset, start, seen and seen[1] or '', found}
