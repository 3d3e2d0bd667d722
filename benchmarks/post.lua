-- wrk posts the webhooks of a file, each once: one line each, "signature<TAB>body".
--   wrk ... -s post.lua URL -- FILE SKIP HEADER
-- Ends with one line of JSON on standard error; times in microseconds.

local prepared, at = {}, 0

function init(args)
  local skip, header = tonumber(args[2]), args[3]
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
  at = at % #prepared + 1  -- from the start again when the file is used up: `posted` tells
  return prepared[at]
end

function done(summary, latency, _)
  local errors = summary.errors
  io.stderr:write(string.format(
    '{"answered": %d, "refused": %d, "broken": %d, "took": %d, "p50": %d, "p99": %d, "max": %d}\n',
    summary.requests, errors.status, errors.connect + errors.read + errors.write + errors.timeout,
    summary.duration, latency:percentile(50), latency:percentile(99), latency.max))
end
