"""Spark with executors in processes of their own: a master and a worker on loopback."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from newfound.compute.engine import running_on
from newfound.config import SparkConfig
from newfound.features.user_history import write_user_history
from tests.datasets.test_engines import SPARK, same


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """A Spark master and a worker on loopback, as processes of their own: the master's URL."""
    home = Path(str(importlib.metadata.distribution("pyspark").locate_file("pyspark")))
    variables = {**os.environ, "SPARK_HOME": str(home), "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_DAEMON_MEMORY": "256m"}
    with ExitStack() as stack:

        def start(role: str, *arguments: str, says: str) -> str:
            command = [str(home / "bin" / "spark-class"), f"org.apache.spark.deploy.{role.lower()}.{role}"]
            log = tmp_path / f"{role}.log"
            process = stack.enter_context(
                subprocess.Popen(
                    [*command, "--host", "127.0.0.1", "--webui-port", "0", *arguments],
                    stdout=subprocess.DEVNULL,
                    stderr=log.open("w"),
                    env=variables,
                    cwd=tmp_path,
                )
            )
            stack.callback(process.kill)
            until = time.monotonic() + 120
            while not (found := re.search(says, log.read_text())):
                assert process.poll() is None and time.monotonic() < until, log.read_text()
                time.sleep(0.2)
            return found[0]

        url = start("Master", "--port", "0", says=r"spark://127\.0\.0\.1:\d+")
        start(
            "Worker",
            "--cores",
            "1",
            "--memory",
            "600m",
            "--work-dir",
            str(tmp_path),
            url,
            says="Successfully registered",
        )
        yield url


@pytest.mark.slow
def test_executors_share_a_folder_with_the_step(cluster: str, tiny: Path, tmp_path: Path) -> None:
    """Executors in processes of their own see the shared folder, where nothing stays."""
    (tmp_path / "shared").mkdir()
    loopback = {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
    properties = {**SPARK.spark.properties, **loopback, "spark.executor.memory": "512m"}
    spark = SparkConfig(master=cluster, folder=str(tmp_path / "shared"), properties=properties)
    write_user_history(tiny, 5, tmp_path / "duckdb.parquet")
    with running_on(SPARK.model_copy(update={"spark": spark})):
        write_user_history(tiny, 5, tmp_path / "spark.parquet")
        assert list((tmp_path / "shared").iterdir())
    same(tmp_path / "spark.parquet", tmp_path / "duckdb.parquet")
    assert not list((tmp_path / "shared").iterdir())
    assert list(tmp_path.glob("app-*/0/stdout"))
