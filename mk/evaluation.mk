.PHONY: bench-worth tables

bench-worth: setup ## served slate, rivals and the language model's worth on four data sets; goes on where it stood
	@$(BIN)/python -m tests.benchmarks.bench_worth

tables: setup ## the tables of README and docs, from the records of `make bench-worth`, `experiment`, `bench-world`, `bench-scale` and `bench-capacity`
	@$(BIN)/python -m tests.benchmarks.tables
