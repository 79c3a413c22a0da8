-- Numbers a message, keeps it, and publishes it. What the same sender sent before is not done twice.
-- KEYS  position, stream, the sender's last sequence number
-- ARGV  new epoch, sequence number, how long (s) it is remembered, time (ms), history, ttl, PUBLISH or SPUBLISH,
--       topic, envelope, fields of the entry...
-- Returns {epoch, offset}.
local epoch, offset = position(KEYS[1], KEYS[2], ARGV[1])
if tonumber(ARGV[2]) <= tonumber(redis.call('GET', KEYS[3]) or 0) then
  return {epoch, offset}
end
redis.call('SET', KEYS[3], ARGV[2], 'EX', ARGV[3])
offset = redis.call('HINCRBY', KEYS[1], 'offset', 1)

local function add()
  return redis.pcall('XADD', KEYS[2], 'MAXLEN', '=', ARGV[5], offset .. '-' .. ARGV[4], unpack(ARGV, 10))
end

if add().err then
  -- Something that a person put there is in the way: keep what was ours, write it anew.
  local ours = redis.pcall('XRANGE', KEYS[2], '-', offset - 1)
  redis.call('DEL', KEYS[2])
  for _, entry in ipairs(ours) do
    redis.call('XADD', KEYS[2], entry[1], unpack(entry[2]))
  end
  local failed = add().err
  if failed then
    return redis.error_reply(failed)
  end
end

local ttl = tonumber(ARGV[6])
if ttl > 0 then
  redis.call('EXPIRE', KEYS[2], ttl)
  redis.call('EXPIRE', KEYS[1], ttl + LIFETIME)
else
  redis.call('PERSIST', KEYS[2])
  redis.call('PERSIST', KEYS[1])
end
local place = cmsgpack.pack(epoch) .. cmsgpack.pack(offset) .. cmsgpack.pack(tonumber(ARGV[4]))
redis.call(ARGV[7], ARGV[8], '\148' .. place .. ARGV[9])
return {epoch, offset}
