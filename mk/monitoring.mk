.PHONY: monitor dashboards bench-monitoring durability

monitor: setup ## days of simulated traffic through the real services, a drift half-way; opens Evidently on them
	@$(BIN)/python -m monitoring rehearse

dashboards: setup ## write the Grafana dashboards' JSON
	@$(BIN)/python -m monitoring dashboards

durability: setup system ## kill loops under load and histories of faults: 100,000 events, nothing lost, nothing twice
	@$(BIN)/python -m tests.durability

bench-monitoring: setup ## ten million events through a report in bounded memory; the collector's durable throughput
	@$(BIN)/python -m tests.benchmarks.bench_monitoring
