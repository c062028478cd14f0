.PHONY: bench-worth

bench-worth: setup ## served slate, rivals and the language model's worth on four data sets; goes on where it stood
	@$(BIN)/python -m tests.benchmarks.bench_worth
