-- Put before every script. Times are milliseconds of Redis TIME, so worker clocks don't matter.

local function now_ms()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end

local TAKES_WORK = { queued = true, enqueuing = true, running = true }
-- May yet be given up; may yet count chunks.
local GOES_ON = { queued = true, enqueuing = true, running = true, paused = true }
local COUNTS = { queued = true, enqueuing = true, running = true, paused = true, cancelling = true }

-- Give a job up that has lasted too long or failed too often. Returns its state afterwards.
local function judge(record)
  local r = redis.call('HMGET', record, 'state', 'deadline_ms', 'max_failed', 'max_failed_share',
    'failed', 'total', 'listing_complete')
  if not GOES_ON[r[1]] then
    return r[1]
  end
  local deadline, most, share = tonumber(r[2]), tonumber(r[3]), tonumber(r[4])
  local failed, ending, reason = tonumber(r[5])
  if deadline and now_ms() > deadline then
    ending, reason = 'expired', 'deadline_exceeded'
  elseif (most and failed > most)
      or (share and r[7] == '1' and failed > share * tonumber(r[6]) + 1e-6) then
    ending, reason = 'failed', 'error_threshold_exceeded'
  else
    return r[1]
  end
  redis.call('HSET', record, 'state', 'cancelling', 'ending', ending, 'reason', reason,
    'updated_ms', now_ms())
  return 'cancelling'
end

-- Move the job to finalizing when nothing is left to wait for: every chunk is finished, or
-- the job is being given up and no chunk is in hand any more. Returns 1 if it moved now.
local function settle(record, owners)
  judge(record)
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
