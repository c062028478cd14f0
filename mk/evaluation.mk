.PHONY: bench-planner-quality bench-worth

bench-planner-quality: setup ## planner beside every baseline, on two data sets; goes on where it stood
	@$(BIN)/python tests/benchmarks/bench_planner_quality.py

bench-worth: setup ## served slate, rivals and the language model's worth on four data sets; goes on where it stood
	@$(BIN)/python -m tests.benchmarks.bench_worth
