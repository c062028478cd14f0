.PHONY: bench-planner-quality

bench-planner-quality: setup ## planner beside every baseline, on two data sets; goes on where it stood
	@$(BIN)/python tests/benchmarks/bench_planner_quality.py
