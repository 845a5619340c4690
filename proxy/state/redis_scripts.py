"""The Lua that changes budgets in Redis: each script is one atomic step.

Redis runs Lua 5.1, whose numbers are doubles and exact only to 2**53; that is 9,007 dollars in pico-dollars.  So an
amount is kept as a decimal string and reckoned with as two halves of base 1e9, each exact.

Every script of a slot begins with `enter`: it knows the session (a command that a lost connection left behind must not
act any more), and on which server it runs.  The server names itself by `run_id` and `master_replid`: one of them is
new after a restart, a failover, a promotion.  Where they are not those that the counters were made under, the
counters may lack what was acknowledged, and a rebuild begins before anything else is done.

KEYS: 1 meta, 2 roster, 3 missing, 4 the slot, 5 its slices, then what the script speaks of.
ARGV: 1 the slot's name, 2 its session, 3 a fresh epoch, should one begin, then the script's own.
"""

from __future__ import annotations

_PRELUDE = """
local BASE = 1000000000
local QUIET = 60000

local function num(s)
  s = s or '0'
  return {tonumber(s:sub(1, -10)) or 0, tonumber(s:sub(-9))}
end
local function text(n)
  if n[1] > 0 then return string.format('%.0f%09.0f', n[1], n[2]) end
  return string.format('%.0f', n[2])
end
local function add(a, b)
  local high, low = a[1] + b[1], a[2] + b[2]
  if low >= BASE then return {high + 1, low - BASE} end
  return {high, low}
end
local function sub(a, b)
  local high, low = a[1] - b[1], a[2] - b[2]
  if low < 0 then return {high - 1, low + BASE} end
  return {high, low}
end
local function less(a, b) return a[1] < b[1] or (a[1] == b[1] and a[2] < b[2]) end
local function least_of(a, b) if less(a, b) then return a end return b end
local function eighth(a)
  local rest = a[1] % 8
  return {(a[1] - rest) / 8, math.floor((rest * BASE + a[2]) / 8)}
end
local ZERO = {0, 0}
local function shed(a, b) if less(a, b) then return ZERO end return sub(a, b) end
local function some(a) return a[1] > 0 or a[2] > 0 end

local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
local function ms(n) return string.format('%.0f', n) end

local function identity()
  local run = redis.call('INFO', 'server'):match('run_id:(%x+)')
  return run .. ':' .. redis.call('INFO', 'replication'):match('master_replid:(%x+)')
end

local function replicas() return redis.call('INFO', 'replication'):match('connected_slaves:(%d+)') end

-- Is this the server that the counters were made on?  If not, a rebuild begins: nothing is granted until the slots
-- that may have lost writes have given their part again.  Those are all, but where the copy is fresh: what a slot had
-- done that was silent by then is in it.
local function epoch_at(now)
  local here = identity()
  if redis.call('HGET', KEYS[1], 'master') ~= here then
    local newest, from = redis.call('ZREVRANGE', KEYS[2], 0, 0, 'WITHSCORES')[2], '-inf'
    if newest and math.abs(now - newest) < QUIET then from = ms(newest - QUIET) end
    for _, slot in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], from, '+inf')) do redis.call('SADD', KEYS[3], slot) end
    redis.call('HSET', KEYS[1], 'master', here, 'epoch', ARGV[3], 'since', ms(now))
  end
  return redis.call('HGET', KEYS[1], 'epoch')
end

-- nil: go on; else what the script returns.
local function enter()
  local now = clock()
  if redis.call('HGET', KEYS[4], 'session') ~= ARGV[2] then return {'fenced'} end
  if redis.call('HGET', KEYS[4], 'epoch') ~= epoch_at(now) then return {'lost'} end
  redis.call('ZADD', KEYS[2], ms(now), ARGV[1])
  return nil
end

local function set_slice(slices, account, amount)
  if some(amount) then redis.call('HSET', slices, account, text(amount)) else redis.call('HDEL', slices, account) end
end
local function less_held(account, amount)
  local held = redis.call('HGET', account, 'held')
  if held then redis.call('HSET', account, 'held', text(shed(num(held), amount))) end
end
local function release(slices)
  local rows = redis.call('HGETALL', slices)
  for i = 1, #rows, 2 do less_held(rows[i], num(rows[i + 1])) end
  redis.call('DEL', slices)
end
"""

OPEN = (
    _PRELUDE
    + """
local epoch = epoch_at(clock())
redis.call('HSET', KEYS[4], 'session', ARGV[2])
local policy = redis.call('INFO', 'memory'):match('maxmemory_policy:([%w-]+)')
local bounded = redis.call('INFO', 'memory'):match('maxmemory:(%d+)') ~= '0'
return {'ok', bounded and policy or 'noeviction', replicas()}
"""
)

ACCOUNTED = (
    _PRELUDE
    + """
local stop = enter()
if stop and stop[1] == 'lost' then return {'ok', '0'} end
if stop then return stop end
return {'ok', redis.call('HGET', KEYS[4], 'next') or '0'}
"""
)

BEAT = (
    _PRELUDE
    + """
local stop = enter()
if stop then return stop end
return {'ok', redis.call('ZRANGE', KEYS[2], 0, -1)}
"""
)

GRANT = (
    _PRELUDE
    + """
local stop = enter()
if stop then return stop end
if redis.call('SCARD', KEYS[3]) > 0 then return {'waits', redis.call('SRANDMEMBER', KEYS[3], 3)} end
if clock() - redis.call('HGET', KEYS[1], 'since') < tonumber(ARGV[4]) then return {'waits', {}} end
local out, k, a = {'ok'}, 6, 5
while ARGV[a] do
  local want, least, also = num(ARGV[a + 1]), num(ARGV[a + 2]), tonumber(ARGV[a + 3])
  local settled, held, own = ZERO, ZERO, nil
  for i = k, k + also do
    local row = redis.call('HMGET', KEYS[i], 'settled', 'held')
    settled, held = add(settled, num(row[1])), add(held, num(row[2]))
    own = own or num(row[2])
  end
  local left, amount = sub(sub(num(ARGV[a]), settled), held), ZERO
  if not less(left, least) then
    amount = eighth(left)
    if less(amount, least) then amount = least end
    amount = least_of(want, amount)
  end
  if some(amount) then
    held = add(held, amount)
    redis.call('HSET', KEYS[k], 'held', text(add(own, amount)))
    redis.call('HSET', KEYS[5], KEYS[k], text(add(num(redis.call('HGET', KEYS[5], KEYS[k])), amount)))
    redis.call('EXPIREAT', KEYS[k], ARGV[a + 4])
  end
  out[#out + 1] = {text(amount), text(settled), text(held)}
  k, a = k + also + 1, a + 5
end
return out
"""
)

GIVE_BACK = (
    _PRELUDE
    + """
local stop = enter()
if stop then return stop end
for i = 6, #KEYS do
  local slice = num(redis.call('HGET', KEYS[5], KEYS[i]))
  local back = least_of(slice, num(ARGV[i - 2]))
  set_slice(KEYS[5], KEYS[i], sub(slice, back))
  less_held(KEYS[i], back)
end
return {'ok'}
"""
)

HOLD = (
    _PRELUDE
    + """
local stop = enter()
if stop then return stop end
for i = 6, #KEYS do
  local slice = num(redis.call('HGET', KEYS[5], KEYS[i]))
  local kept = least_of(slice, num(ARGV[i - 2]))
  set_slice(KEYS[5], KEYS[i], kept)
  less_held(KEYS[i], sub(slice, kept))
end
return {'ok'}
"""
)

RELEASE = (
    _PRELUDE
    + """
local stop = enter()
if stop then return stop end
release(KEYS[5])
return {'ok'}
"""
)

ACCOUNT = (
    _PRELUDE
    + """
local stop = enter()
if stop then return stop end
local after = num(redis.call('HGET', KEYS[4], 'next'))
if not less(after, num(ARGV[4])) then
  if less(num(ARGV[4]), after) then return {'ok'} end
  return {'ok', redis.call('HGET', KEYS[4], 'reply') or ''}
end
local mine, reply, a = 's:' .. ARGV[1], {}, 5
for i = 6, #KEYS do
  local spent, slice = num(ARGV[a]), num(redis.call('HGET', KEYS[5], KEYS[i]))
  local row = redis.call('HMGET', KEYS[i], 'settled', mine)
  redis.call('HSET', KEYS[i], 'settled', text(add(num(row[1]), spent)), mine, text(add(num(row[2]), spent)))
  local paid = least_of(slice, spent)
  set_slice(KEYS[5], KEYS[i], sub(slice, paid))
  less_held(KEYS[i], paid)
  redis.call('EXPIREAT', KEYS[i], ARGV[a + 1])
  if less(paid, spent) then reply[#reply + 1] = (i - 6) .. ' ' .. text(sub(spent, paid)) end
  a = a + 2
end
reply = table.concat(reply, ',')
redis.call('HSET', KEYS[4], 'next', ARGV[4], 'reply', reply)
return {'ok', reply}
"""
)

RESTORE = (
    _PRELUDE
    + """
local stop = enter()
if stop and stop[1] ~= 'lost' then return stop end
local now, mine, a = clock(), 's:' .. ARGV[1], 6
release(KEYS[5])
for i = 6, #KEYS do
  local row = redis.call('HMGET', KEYS[i], 'settled', mine, 'held')
  if ARGV[a] ~= '' then
    local others = shed(num(row[1]), num(row[2]))
    redis.call('HSET', KEYS[i], 'settled', text(add(others, num(ARGV[a]))), mine, ARGV[a])
  end
  if ARGV[a + 1] ~= '' then
    redis.call('HSET', KEYS[i], 'held', text(add(num(row[3]), num(ARGV[a + 1]))))
    set_slice(KEYS[5], KEYS[i], num(ARGV[a + 1]))
  end
  redis.call('EXPIREAT', KEYS[i], ARGV[a + 2])
  a = a + 3
end
redis.call('HSET', KEYS[4], 'epoch', redis.call('HGET', KEYS[1], 'epoch'), 'next', ARGV[4], 'reply', '')
redis.call('SREM', KEYS[3], ARGV[1])
redis.call('HDEL', KEYS[1], 'retired:' .. ARGV[1])
redis.call('ZADD', KEYS[2], ms(now), ARGV[1])
for i = a, a + ARGV[5] - 1 do  -- slots that this one knew of; where the server forgot them, they are waited for
  if not redis.call('ZSCORE', KEYS[2], ARGV[i]) and redis.call('HEXISTS', KEYS[1], 'retired:' .. ARGV[i]) == 0 then
    redis.call('ZADD', KEYS[2], '0', ARGV[i])
    redis.call('SADD', KEYS[3], ARGV[i])
  end
end
return {'ok', replicas()}
"""
)

RETIRE = (
    _PRELUDE
    + """
epoch_at(clock())
local known = redis.call('ZREM', KEYS[2], ARGV[1]) + redis.call('SREM', KEYS[3], ARGV[1])
if known == 0 then return {'ok', 0} end
redis.call('HSET', KEYS[1], 'retired:' .. ARGV[1], '1')
release(KEYS[5])
redis.call('DEL', KEYS[4])
return {'ok', 1}
"""
)

SWEEP = (
    _PRELUDE
    + """
local now = clock()
epoch_at(now)
local waited = {}
for _, slot in ipairs(redis.call('SMEMBERS', KEYS[3])) do waited[slot] = true end
local rows = redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES')
for i = 1, #rows, 2 do
  local slot, silent = rows[i], now - rows[i + 1]
  local key, slices = ARGV[4] .. 'slot:' .. slot, ARGV[4] .. 'slices:' .. slot
  if silent > tonumber(ARGV[5]) and not waited[slot] then
    release(slices)
    redis.call('HDEL', key, 'epoch')
  end
  for _, account in ipairs(redis.call('HKEYS', slices)) do
    if redis.call('EXISTS', account) == 0 then redis.call('HDEL', slices, account) end
  end
  if silent > tonumber(ARGV[6]) and not waited[slot] then
    redis.call('ZREM', KEYS[2], slot)
    redis.call('DEL', key)
  end
end
return {'ok'}
"""
)
