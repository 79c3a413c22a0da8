-- Looks at the mark of a server, and makes one where there is none.
-- KEYS  mark   ARGV  a new mark, seconds it is kept after the last look   Returns the mark that is there now.
local found = redis.call('GET', KEYS[1])
if found then
  redis.call('EXPIRE', KEYS[1], ARGV[2])
  return string.sub(found, 1, 16)
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return ARGV[1]
