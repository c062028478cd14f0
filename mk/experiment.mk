.PHONY: experiment experiment-quick bench-world simulate-traffic

experiment: setup ## the claim itself: closed loop, random exposure, dense replay, off-policy; goes on where it stood
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.bench_experiment --size full

experiment-quick: setup ## the same, small enough for minutes
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.bench_experiment --size quick --out runs/experiment-quick --record runs/bench/experiment-quick.json

bench-world: setup ## a simulated world alone: 100,000 people, 60 days
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.bench_world

simulate-traffic: setup ## simulated clients drive the last release's real services over HTTP: requests, then feedback
	@$(BIN)/python -m monitoring simulate-traffic
