.PHONY: images image-base image-daemon run-containers test-images cluster-parts

# Where images are built and run; on a machine without Docker, `make image-daemon` starts one of its own.
DOCKER ?= docker
REGISTRY ?=
TAG ?= 0.1.0
BASE_IMAGE ?= python:3.11-slim-bookworm
WHEELS_IMAGE ?= scratch
BUILD_ARGS ?=

images: ## build the images train, serve and monitor (REGISTRY=, TAG=, BASE_IMAGE=, WHEELS_IMAGE=)
	@DOCKER="$(DOCKER)" REGISTRY="$(REGISTRY)" TAG="$(TAG)" BASE_IMAGE="$(BASE_IMAGE)" WHEELS_IMAGE="$(WHEELS_IMAGE)" \
	  BUILD_ARGS="$(BUILD_ARGS)" images/build.sh

image-base: ## a base image from Debian's packages and a wheel image from PIP_FIND_LINKS, where no registry is in reach (root)
	@DOCKER="$(DOCKER)" images/base.sh

image-daemon: ## start Debian's dockerd with a data root and a socket of its own (root)
	@images/daemon.sh

run-containers: setup images ## the training pipeline in containers, on a slice of real data; sizes and times
	@$(BIN)/python -m pytest tests/images/test_training.py -m "" -s -q

test-images: setup images ## serving's containers: answers and probes, read-only, without root
	@$(BIN)/python -m pytest tests/images/test_serving.py -m "" -s -q

cluster-parts: setup ## what a cluster shares out: shards and workers by the local runner, a TrainJob's two pods by torchrun
	@$(BIN)/python -m pytest tests/components/test_train_job.py tests/pipelines/test_shape.py -m "" -q
