# newfound's images, one target a weight: train (pipeline steps), serve (explorer, ranker, the planner's stand-in),
# monitor (collector, reports, exporter). vLLM's image is upstream's. `make images` builds them; docs/images.md says how.
#
# Any base with Python 3.11 as python3 and its venv module. Wheels that no index has, such as a CPU build of torch, come
# in as an image that holds nothing else.
ARG BASE_IMAGE=python:3.11-slim-bookworm
ARG WHEELS_IMAGE=scratch

FROM ${WHEELS_IMAGE} AS wheels

# ---- what builds, and is left behind ----
FROM ${BASE_IMAGE} AS tools
ENV PATH=/opt/tools/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /src
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca \
    if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi; \
    python3 -m venv /opt/tools && pip install --quiet uv==0.13.9 cyclonedx-bom==7.5.0
# The lock before the source: a change of code installs nothing anew.
COPY pyproject.toml requirements.lock images/install.sh images/locked.py ./

FROM tools AS train-packages
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca \
    --mount=type=cache,target=/root/.cache/uv --mount=type=bind,from=wheels,target=/wheels \
    ./install.sh newfound-train train pipelines features s3

FROM tools AS serve-packages
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca \
    --mount=type=cache,target=/root/.cache/uv --mount=type=bind,from=wheels,target=/wheels \
    ./install.sh newfound-serve serve features s3

FROM tools AS monitor-packages
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca \
    --mount=type=cache,target=/root/.cache/uv --mount=type=bind,from=wheels,target=/wheels \
    ./install.sh newfound-monitor monitor pipelines features s3

# The library's own metadata, which points at /app, where its source lies beside the adapters'.
FROM tools AS package
WORKDIR /app
COPY pyproject.toml README.md ./
COPY newfound newfound
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca \
    if [ -s /run/secrets/ca ]; then export SSL_CERT_FILE=/run/secrets/ca; fi; \
    if index=$(pip config get global.index-url 2>/dev/null); then export UV_DEFAULT_INDEX="$index"; fi; \
    uv pip install --quiet --no-cache --target /opt/package --no-deps --editable . \
    && mkdir /opt/package-bin && mv /opt/package/bin/newfound /opt/package-bin/ \
    && rm -r /opt/package/bin /opt/package/.lock \
    && sed -i '1s|.*|#!/opt/venv/bin/python|' /opt/package-bin/newfound

# ---- what runs ----
# The revision changes with every commit, so its label comes last: the layers before it are kept.
FROM ${BASE_IMAGE} AS base
ARG BASE_IMAGE
LABEL org.opencontainers.image.base.name=${BASE_IMAGE} \
      org.opencontainers.image.licenses=Apache-2.0 \
      org.opencontainers.image.vendor=newfound
# Nothing is written but below /tmp, which a platform mounts: the root file system may be read-only.
ENV PATH=/opt/venv/bin:$PATH HOME=/tmp \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    DO_NOT_TRACK=1 FEAST_USAGE=False HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false OMP_WAIT_POLICY=PASSIVE
RUN useradd --uid 1000 --user-group --home-dir /tmp --no-create-home --shell /usr/sbin/nologin newfound
WORKDIR /app

FROM base AS train
COPY --from=train-packages /opt/venv /opt/venv
COPY --from=train-packages /opt/sbom /usr/share/sbom
COPY --from=package /opt/package-bin /opt/venv/bin
COPY --from=package /opt/package /opt/venv/lib/python3.11/site-packages
COPY newfound newfound
COPY feature_repo feature_repo
COPY pipelines pipelines
COPY components components
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title=newfound-train \
      org.opencontainers.image.description="Steps of the training, refresh and batch pipelines" \
      org.opencontainers.image.version=${VERSION} org.opencontainers.image.revision=${REVISION}
USER 1000:1000
CMD ["python", "-m", "pipelines", "--help"]

FROM base AS serve
COPY --from=serve-packages /opt/venv /opt/venv
COPY --from=serve-packages /opt/sbom /usr/share/sbom
COPY --from=package /opt/package-bin /opt/venv/bin
COPY --from=package /opt/package /opt/venv/lib/python3.11/site-packages
COPY newfound newfound
COPY feature_repo feature_repo
COPY serving serving
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title=newfound-serve \
      org.opencontainers.image.description="Explorer (KServe transformer), ranker (predictor), the planner's stand-in" \
      org.opencontainers.image.version=${VERSION} org.opencontainers.image.revision=${REVISION}
USER 1000:1000
CMD ["python", "-m", "serving.explorer", "--help"]

FROM base AS monitor
COPY --from=monitor-packages /opt/venv /opt/venv
COPY --from=monitor-packages /opt/sbom /usr/share/sbom
COPY --from=package /opt/package-bin /opt/venv/bin
COPY --from=package /opt/package /opt/venv/lib/python3.11/site-packages
COPY newfound newfound
COPY feature_repo feature_repo
COPY pipelines pipelines
COPY components components
COPY monitoring monitoring
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title=newfound-monitor \
      org.opencontainers.image.description="Collector of events, reports, exporter, decisions" \
      org.opencontainers.image.version=${VERSION} org.opencontainers.image.revision=${REVISION}
USER 1000:1000
CMD ["python", "-m", "monitoring", "--help"]
