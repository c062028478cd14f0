.PHONY: serve bench-serving bench-capacity chaos trace

serve: setup ## serve the current release on loopback, with the page (PORT=, ONLINE=, PLANNER=)
	@$(BIN)/python -m serving.local.__main__ $(if $(PORT),--port $(PORT)) $(if $(ONLINE),--online $(ONLINE)) $(if $(PLANNER),--planner $(PLANNER))

bench-serving: setup ## the whole request path beside KServe's own chain with nothing in it
	@$(BIN)/python -m tests.benchmarks.bench_serving

bench-capacity: setup system ## memory and time from 10 thousand to 5 million items, bytes of a user in Redis; goes on where it stood
	@$(BIN)/python -m tests.benchmarks.bench_capacity

chaos: setup system ## ten thousand requests while parts, disk and clock fail: everything answered, no event lost
	@$(BIN)/python -m tests.chaos

trace: setup system ## one request's way through explorer, planner and ranker, as docs/trace.svg
	@$(BIN)/python -m tests.serving.traces docs/trace.svg
