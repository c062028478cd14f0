.PHONY: serve bench-serving chaos trace

serve: setup ## serve the current release on loopback, with the page (PORT=, ONLINE=, PLANNER=)
	@$(BIN)/python -m serving.local.__main__ $(if $(PORT),--port $(PORT)) $(if $(ONLINE),--online $(ONLINE)) $(if $(PLANNER),--planner $(PLANNER))

bench-serving: setup ## the whole request path beside KServe's own chain with nothing in it
	@$(BIN)/python -m tests.benchmarks.bench_serving

chaos: setup system ## ten thousand requests while parts, disk and clock fail: everything answered, no event lost
	@$(BIN)/python -m tests.chaos

trace: setup system ## one request's way through explorer, planner and ranker, as docs/trace.svg
	@$(BIN)/python -m tests.serving.traces docs/trace.svg
