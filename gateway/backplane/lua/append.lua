-- Numbers a message, keeps it, and publishes it, in one step: members see messages in the order of their offsets. What the
-- same sender has sent before is not done twice: with a number that is not above its last one nothing happens, and the
-- answer is the newest position.
-- KEYS  position, stream, the sender's last sequence number, seed
-- ARGV  new epoch, sequence number, how long (s) it is remembered, time (ms), history, history_bytes, ttl, epoch that
--       the sender knows to have been used, PUBLISH or SPUBLISH, topic, envelope, fields of the entry...
-- Returns {epoch, offset, bytes kept, messages that went because of their bytes}.
local epoch, offset, _, bytes = position(KEYS[1], KEYS[2], ARGV[1])
if not epoch then
  local at = period()
  epoch, offset, bytes = promise(seed_at(KEYS[4], ARGV[1]), KEYS[2], at), 0, 0
  -- The promise must not be kept twice: another history, that was lost and the seed was not, had this epoch, and clients
  -- may know it.
  local is_used = epoch == ARGV[8] or redis.call('EXISTS', KEYS[1], KEYS[2], KEYS[3]) > 0
  redis.call('DEL', KEYS[1], KEYS[2])
  if is_used then
    epoch = ARGV[1]
    redis.call('HSET', KEYS[1], 'epoch', epoch, 'offset', 0)
  else
    redis.call('HSET', KEYS[1], 'epoch', epoch, 'offset', 0, 'promised', at)
  end
end
local sent = redis.pcall('GET', KEYS[3])
if tonumber(ARGV[2]) <= (type(sent) == 'string' and tonumber(sent) or 0) then
  return {epoch, offset, bytes, 0}
end
-- Noted before it is kept. For its own state (OOM, MISCONF) Redis refuses a script only at its first write, so nothing of
-- that kind comes between the two, after which the same number would be taken for done.
redis.call('SET', KEYS[3], ARGV[2], 'EX', ARGV[3])
offset = offset + 1

local function size_of(fields, first)
  local size = 0
  for i = first + 1, #fields, 2 do
    size = size + #fields[i]
  end
  return size
end

local size, most, most_bytes = size_of(ARGV, 12), tonumber(ARGV[5]), tonumber(ARGV[6])
local trimmed = 0

-- Lets the oldest go until there is room for one more, some at a time; entries put among them by hand do no harm.
local function make_room()
  local length = redis.pcall('XLEN', KEYS[2])
  if type(length) ~= 'number' then
    return
  end
  bytes = length > 0 and bytes or 0
  local function is_full()
    return length >= most or most_bytes > 0 and bytes + size > most_bytes
  end
  while length > 0 and is_full() do
    local gone = {}
    for _, entry in ipairs(redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 64)) do
      if not is_full() then
        break
      end
      trimmed = trimmed + (length < most and 1 or 0)
      gone[#gone + 1] = entry[1]
      length = length - 1
      bytes = math.max(0, bytes - size_of(entry[2], 1))
    end
    if #gone == 0 then
      return
    end
    redis.call('XDEL', KEYS[2], unpack(gone))
  end
end

local function add()
  return redis.pcall('XADD', KEYS[2], offset .. '-' .. ARGV[4], unpack(ARGV, 12))
end

make_room()
local is_kept = most_bytes == 0 or size <= most_bytes
local failure = is_kept and add().err
if failure and not (failure:find('WRONGTYPE') or failure:find(' ID')) then
  return redis.error_reply(failure .. ' (XADD)') -- nothing is in the way, and what is kept must stay
end
if not is_kept then
  trimmed = trimmed + 1
elseif failure then
  -- Something that a person put there is in the way: keep what was ours, write it anew.
  local ours = redis.pcall('XRANGE', KEYS[2], '-', offset - 1)
  redis.call('DEL', KEYS[2])
  bytes = size
  for _, entry in ipairs(ours) do
    if #entry[2] <= 20 then -- one put there by hand may have more fields than a call can take
      redis.call('XADD', KEYS[2], entry[1], unpack(entry[2]))
      bytes = bytes + size_of(entry[2], 1)
    end
  end
  local failed = add().err
  if failed then
    return redis.error_reply(failed .. ' (XADD)')
  end
else
  bytes = bytes + size
end
redis.call('HSET', KEYS[1], 'offset', offset, 'bytes', bytes)

local ttl = tonumber(ARGV[7])
if ttl > 0 then
  redis.call('EXPIRE', KEYS[2], ttl)
  redis.call('EXPIRE', KEYS[1], ttl + LINGER)
else
  redis.call('PERSIST', KEYS[2])
  redis.call('PERSIST', KEYS[1])
end
-- Last, so that nothing is told that could not be kept. The envelope is a msgpack array of four ('\148'): the parts of the
-- position, which are known only here, and what the node has packed.
local place = cmsgpack.pack(epoch) .. cmsgpack.pack(offset) .. cmsgpack.pack(tonumber(ARGV[4]))
redis.call(ARGV[9], ARGV[10], '\148' .. place .. ARGV[11])
return {epoch, offset, bytes, trimmed}
