-- Takes a connection from its user; the user is offline when it was the last.
-- KEYS  user's connections, [users]
-- ARGV  connection, user
redis.call('SREM', KEYS[1], ARGV[1])
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 0
end
if KEYS[2] then
  redis.call('SREM', KEYS[2], ARGV[2])
end
return 1
