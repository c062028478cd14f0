.PHONY: bench-scale

bench-scale: .rectools/.ready ## table steps from a million to a hundred million interactions, beside pandas and RecTools; goes on where it stood
	@$(BIN)/python -m tests.benchmarks.bench_scale $(if $(SIZES),--sizes $(SIZES))
