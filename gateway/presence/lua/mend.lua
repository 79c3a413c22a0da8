-- Removes a key that holds another type than it should: nobody can write there what belongs there.
-- KEYS  key   ARGV  type   Returns the type that was found, '' when nothing was removed.
local found = redis.call('TYPE', KEYS[1]).ok
if found == 'none' or found == ARGV[1] then
  return ''
end
redis.call('DEL', KEYS[1])
return found
