.PHONY: manifests chains

OVERLAYS := local production

manifests: setup system ## render every overlay into runs/manifests and check it (schemas, references, servers, flows)
	@mkdir -p runs/manifests
	@$(BIN)/python -m k8s
	@for overlay in $(OVERLAYS); do $(BIN)/python -m k8s k8s/overlays/$$overlay > runs/manifests/$$overlay.yaml || exit 1; done
	@$(BIN)/python -m pytest tests/k8s -q -m "not gpu"

chains: setup system ## real servers: requests through Envoy as production's YAML has it, releases on S3, alerts
	@$(BIN)/python -m pytest tests/chain tests/release/test_object_store.py -m "" -q
