-- wrk posts the webhooks of a file: one line each, "signature<TAB>body".
--   wrk ... -s post.lua URL -- FILE SKIP HEADER [fresh]
-- With `fresh` each request has a delivery's id of its own, so that a webhook may be posted again and again.
-- Ends with one line of JSON on standard error; times in microseconds.

local prepared, at, posted, fresh = {}, 0, 0, nil
local run = os.time()

function init(args)
  local skip, header = tonumber(args[2]), args[3]
  fresh = args[4] == "fresh"
  local number = 0
  for line in io.lines(args[1]) do
    number = number + 1
    if number > skip then
      local tab = line:find("\t", 1, true)
      local headers = {["Content-Type"] = "application/json", [header] = line:sub(1, tab - 1)}
      prepared[#prepared + 1] = wrk.format("POST", nil, headers, line:sub(tab + 1))
    end
  end
end

function request()
  at = at % #prepared + 1
  if not fresh then return prepared[at] end
  posted = posted + 1
  return (prepared[at]:gsub("\r\n", "\r\nX-Webhook-Id: " .. run .. "-" .. posted .. "\r\n", 1))
end

function done(summary, latency, _)
  local errors = summary.errors
  io.stderr:write(string.format(
    '{"answered": %d, "refused": %d, "broken": %d, "took": %d, "p50": %d, "p99": %d, "max": %d}\n',
    summary.requests, errors.status, errors.connect + errors.read + errors.write + errors.timeout,
    summary.duration, latency:percentile(50), latency:percentile(99), latency.max))
end
