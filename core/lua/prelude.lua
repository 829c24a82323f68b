-- Put before every script. Times are milliseconds of Redis TIME, so worker clocks don't matter.

local function now_ms()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end

local TAKES_WORK = { queued = true, enqueuing = true, running = true }
-- May yet be given up; may yet count chunks.
local GOES_ON = { queued = true, enqueuing = true, running = true, paused = true }
local COUNTS = { queued = true, enqueuing = true, running = true, paused = true, cancelling = true }

-- Move the job to finalizing when nothing is left to wait for: every chunk is finished, or
-- the job is being given up and no chunk is in hand any more. Returns 1 if it moved now.
local function settle(record, owners)
  local r = redis.call('HMGET', record, 'state', 'listing_complete', 'done', 'chunks')
  local state = r[1]
  local finished = r[2] == '1' and r[3] == r[4]
  local drained = state == 'cancelling' and redis.call('HLEN', owners) == 0
  if COUNTS[state] and (finished or drained) then
    local now = now_ms()
    redis.call('HSET', record, 'state', 'finalizing', 'finalizing_ms', now, 'updated_ms', now)
    return 1
  end
  return 0
end
