-- wrk's request: a chat of about 2 KB.
local stream = os.getenv("BENCH_KIND") == "sse" and ',"stream":true,"stream_options":{"include_usage":true}' or ""
wrk.method = "POST"
wrk.body = '{"messages":[{"role":"user","content":"' .. os.getenv("BENCH_PROMPT") .. '"}],"model":"'
  .. os.getenv("BENCH_MODEL") .. '"' .. stream .. '}'
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer " .. os.getenv("BENCH_KEY")
