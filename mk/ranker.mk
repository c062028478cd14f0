.PHONY: bench-index bench-joint bench-ranker-quality bench-ranker-speed

# What the ranker is compared with lives in an environment of its own: RecTools asks for another numpy.
.rectools/.ready: $(VENV)/.ready
	@test -x .rectools/bin/python || $(PYTHON) -m venv .rectools
	@$(BIN)/uv pip install --quiet --python .rectools/bin/python "rectools[torch]==0.19.0" torch==2.13.0 faiss-cpu==1.15.1 pyarrow==25.0.0
	@touch $@

bench-index: .rectools/.ready ## the best items of some clusters, from 100 thousand to 5 million items
	@$(BIN)/python -m tests.benchmarks.bench_index

bench-joint: setup ## the joint decision's best items, from 100 thousand to 5 million items
	@$(BIN)/python -m tests.benchmarks.bench_joint

bench-ranker-quality: setup ## leave one out, every item ranked, three seeds (INTERACTIONS=, ITEMS=)
	@$(BIN)/python -m tests.benchmarks.bench_ranker_quality $(if $(INTERACTIONS),--interactions $(INTERACTIONS)) $(if $(ITEMS),--items $(ITEMS))

bench-ranker-speed: .rectools/.ready ## seconds to the quality that RecTools reaches in 20 epochs (INTERACTIONS=)
	@$(BIN)/python -m tests.benchmarks.bench_ranker_speed $(if $(INTERACTIONS),--interactions $(INTERACTIONS))
