#!lua name=penstock_@
-- The functions of `ValkeyJournal`. "@" stands for the first characters of this file's SHA-256, so that nodes of different
-- versions can share a server. All keys of a call have one hash tag. Ids stay strings: a Lua number has 53 bits.

local function micros()
  local now = redis.call('TIME')
  return now[1] * 1000000 + now[2]
end

local function define(name, callback)
  redis.register_function(name .. '_@', callback)
end

-- --- logs ------------------------------------------------------------------------------------------------------------

-- Append an entry behind the tail that is expected; answers 1, or the tail if it is another one.
local function append(log, message, is_published, keep, lapses)
  local _, last, expected, id, field = string.find(message, '^([%d-]+) ([%d-]+) (.)')
  local found = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
  local tail = found and found[1] or '0-0'
  if tail ~= expected then
    if tail == id or redis.call('XRANGE', log, id, id)[1] then  -- stored by an earlier call whose answer was lost
      if not is_published then
        redis.call('XSETID', log, tail)  -- changes nothing, but WAIT waits only for a write of its own connection
      end
      return id
    end
    return tail
  end
  redis.call('XADD', log, id, field, string.sub(message, last + 1))
  if lapses and lapses ~= '0' then
    redis.call('PEXPIRE', log, lapses)
  elseif field == 'l' then
    redis.call('PEXPIRE', log, keep)
  end
  if is_published then
    redis.call('SPUBLISH', log, message)
  end
  return 1
end

-- Append an entry to each key, in order. Arguments: a message for each ('expected id field', and at once the value), 1 to
-- publish them now, for how many milliseconds a log is kept after its end, and, if a log is to be removed whether it ends or
-- not, after how many for each, '0': it is not. Answers in the same order.
define('append', function(keys, args)
  local answers, count = {}, #keys
  for index = 1, count do
    local is_done, answer = pcall(
      append, keys[index], args[index], args[count + 1] == '1', args[count + 2], args[count + 2 + index]
    )
    if not is_done and type(answer) ~= 'table' then
      answer = {err = 'ERR ' .. tostring(answer)}
    end
    answers[index] = answer
  end
  return answers
end)

-- Publish what has been appended and confirmed. Arguments: the messages.
define('publish', function(keys, args)
  for index, log in ipairs(keys) do
    redis.call('SPUBLISH', log, args[index])
  end
end)

-- Write something that changes nothing, for WAIT; see above.
define('touch', function(keys)
  local last = redis.call('XREVRANGE', keys[1], '+', '-', 'COUNT', 1)[1]
  if last then
    redis.call('XSETID', keys[1], last[1])
  end
end)

-- Remove a log, and publish that it is empty.
define('forget', function(keys)
  local gone = redis.call('UNLINK', keys[1])
  redis.call('SPUBLISH', keys[1], '0-0')
  return gone
end)

-- Remove the entries before an id, but never the last one. Arguments: milliseconds and sequence of the id.
define('trim', function(keys, args)
  local last = redis.call('XREVRANGE', keys[1], '+', '-', 'COUNT', 1)[1]
  if not last then
    return 0
  end
  local before = redis.call('XRANGE', keys[1], args[1], '+', 'COUNT', 1)[1]
  return redis.call('XTRIM', keys[1], 'MINID', before and before[1] or last[1])
end)

-- --- requests --------------------------------------------------------------------------------------------------------
-- Keys: 1 hash, id -> what was asked for; 2 hash, id -> 'number deliveries nonce node', node '' while it waits;
-- 3 sorted set of those that wait, by number; 4 sorted set of those that are claimed, by the time of the last keep, ms;
-- 5 set of those that the calling node has claimed, with some that it has no more.

local function record_of(owners, id)
  local record = redis.call('HGET', owners, id)
  if not record then
    return nil
  end
  local number, deliveries, nonce, node = string.match(record, '^(%d+) (%d+) (%x*) (.*)$')
  return {id = id, number = number, deliveries = tonumber(deliveries), nonce = nonce, node = node}
end

local function write(owners, record)
  local text = record.number .. ' ' .. record.deliveries .. ' ' .. record.nonce .. ' ' .. record.node
  redis.call('HSET', owners, record.id, text)
end

local function hold(keys, mine, record, node)
  record.node = node
  write(keys[2], record)
  redis.call('ZREM', keys[3], record.id)
  redis.call('ZADD', keys[4], string.format('%.0f', micros() / 1000), record.id)
  redis.call('SADD', mine, record.id)
  redis.call('PEXPIRE', mine, 86400000)  -- of a node that has died; a living one renews its claims
end

local function remove(keys, id)
  redis.call('HDEL', keys[1], id)
  redis.call('ZREM', keys[3], id)
  redis.call('ZREM', keys[4], id)
  return redis.call('HDEL', keys[2], id)
end

local function by_number(one, other)
  if #one.number ~= #other.number then
    return #one.number < #other.number
  end
  return one.number < other.number
end

local function answer(keys, records, limit)
  table.sort(records, by_number)
  local found = {}
  for index = 1, math.min(limit, #records) do
    local record = records[index]
    table.insert(found, {record.number, record.id, record.deliveries, redis.call('HGET', keys[1], record.id) or ''})
  end
  return found
end

-- Arguments: id, what is asked for, node or '', a nonce by which a repeated call is recognised.
define('enqueue', function(keys, args)
  local known = record_of(keys[2], args[1])
  if known then
    return known.nonce == args[4] and 1 or 0
  end
  local record = {id = args[1], number = string.format('%.0f', micros()), deliveries = 0, nonce = args[4], node = ''}
  redis.call('HSET', keys[1], record.id, args[2])
  if args[3] == '' then
    write(keys[2], record)
    redis.call('ZADD', keys[3], record.number, record.id)
  else
    record.deliveries = 1
    hold(keys, keys[5], record, args[3])
  end
  return 1
end)

local function due(keys, limit, lease)
  local records = {}
  local function add(ids, source)
    for _, id in ipairs(ids) do
      local record = record_of(keys[2], id)
      if record then
        table.insert(records, record)
      else
        redis.call('ZREM', source, id)
      end
    end
  end
  local until_then = string.format('%.0f', micros() / 1000 - lease)
  add(redis.call('ZRANGEBYSCORE', keys[4], '-inf', until_then, 'LIMIT', 0, limit), keys[4])
  add(redis.call('ZRANGE', keys[3], 0, limit - 1), keys[3])
  table.sort(records, by_number)
  return records
end

-- Arguments: how many, lease in milliseconds. Answers the numbers of those that can be claimed.
define('due', function(keys, args)
  local numbers = {}
  for _, record in ipairs(due(keys, tonumber(args[1]), args[2])) do
    table.insert(numbers, record.number)
  end
  return numbers
end)

-- Arguments: node, how many, lease in milliseconds.
define('claim', function(keys, args)
  local limit = tonumber(args[2])
  local records = due(keys, limit, args[3])
  for index = 1, math.min(limit, #records) do
    records[index].deliveries = records[index].deliveries + 1
    hold(keys, keys[5], records[index], args[1])
  end
  return answer(keys, records, limit)
end)

-- Arguments: node, ids. Answers those that it still has.
define('keep', function(keys, args)
  local node = table.remove(args, 1)
  local now, kept, scores = string.format('%.0f', micros() / 1000), {}, {}
  for index, record in ipairs(redis.call('HMGET', keys[2], unpack(args))) do
    if record and string.match(record, '^%d+ %d+ %x* (.*)$') == node then
      table.insert(kept, args[index])
      table.insert(scores, now)
      table.insert(scores, args[index])
    else
      redis.call('SREM', keys[5], args[index])
    end
  end
  if #kept > 0 then
    redis.call('ZADD', keys[4], 'XX', unpack(scores))
    redis.call('PEXPIRE', keys[5], 86400000)
  end
  return kept
end)

-- Arguments: node, id.
define('release', function(keys, args)
  redis.call('SREM', keys[5], args[2])
  local record = record_of(keys[2], args[2])
  if not record or record.node ~= args[1] then
    return 0
  end
  return remove(keys, args[2])
end)

-- End a request, whichever node has it. Arguments: id.
define('finish', function(keys, args)
  redis.call('SREM', keys[5], args[1])
  return remove(keys, args[1])
end)

-- Keys: also 6, the set of the other node. Arguments: node, id, the other node. Harmless if it is done again.
define('hand_over', function(keys, args)
  local record = record_of(keys[2], args[2])
  if not record or (record.node ~= args[1] and record.node ~= args[3]) then
    return 0
  end
  redis.call('SREM', keys[5], args[2])
  hold(keys, keys[6], record, args[3])
  return 1
end)

-- Arguments: node.
define('held', function(keys, args)
  local records = {}
  for _, id in ipairs(redis.call('SMEMBERS', keys[5])) do
    local record = record_of(keys[2], id)
    if record and record.node == args[1] then
      table.insert(records, record)
    else
      redis.call('SREM', keys[5], id)
    end
  end
  return answer(keys, records, #records)
end)

-- Answers node, number of claims, node, … and the number of those that wait with the node ''.
define('counts', function(keys)
  local counts, flat = {}, {}
  for _, record in ipairs(redis.call('HVALS', keys[2])) do
    local node = string.match(record, '^%d+ %d+ %x* (.*)$')
    counts[node] = (counts[node] or 0) + 1
  end
  for node, count in pairs(counts) do
    table.insert(flat, node)
    table.insert(flat, count)
  end
  return flat
end)

-- --- shared by all nodes ---------------------------------------------------------------------------------------------

-- The generic cell rate algorithm; the key has the time at which the limit is whole again, in microseconds.
-- Arguments: cost, per second, burst. Answers the microseconds to wait, 0: taken.
define('take', function(keys, args)
  local now = micros()
  local whole = math.max(now, tonumber(redis.call('GET', keys[1]) or 0)) + args[1] * 1000000 / args[2]
  local wait = whole - now - args[3] * 1000000 / args[2]
  if wait >= 1 then
    return string.format('%.0f', math.ceil(wait))
  end
  redis.call('SET', keys[1], string.format('%.0f', whole), 'PX', math.floor((whole - now) / 1000) + 1)
  return '0'
end)

-- Keys: sorted set of nodes by the end of their leases, ms; hash of what they say. Arguments: node, its words, lease in ms.
define('announce', function(keys, args)
  if tonumber(args[3]) > 0 then
    redis.call('ZADD', keys[1], string.format('%.0f', micros() / 1000 + args[3]), args[1])
    redis.call('HSET', keys[2], args[1], args[2])
  else
    redis.call('ZREM', keys[1], args[1])
    redis.call('HDEL', keys[2], args[1])
  end
end)

-- Keys: as before. Answers what the living nodes say, and forgets the others.
define('living', function(keys)
  local now = string.format('%.0f', micros() / 1000)
  for _, node in ipairs(redis.call('ZRANGEBYSCORE', keys[1], '-inf', now)) do
    redis.call('HDEL', keys[2], node)
    redis.call('ZREM', keys[1], node)
  end
  return redis.call('HVALS', keys[2])
end)
