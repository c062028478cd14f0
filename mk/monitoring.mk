.PHONY: monitor dashboards bench-monitoring

monitor: setup ## days of simulated traffic through the real services, a drift half-way; opens Evidently on them
	@$(BIN)/python -m monitoring rehearse

dashboards: setup ## write the Grafana dashboards' JSON
	@$(BIN)/python -m monitoring dashboards

bench-monitoring: setup ## ten million events through a report in bounded memory; the collector's durable throughput
	@$(BIN)/python -m tests.benchmarks.bench_monitoring
