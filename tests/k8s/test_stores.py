"""The stores' own scripts and settings, run with the real programs: what a container does, in a folder of ours."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from k8s.kustomize import ROOT
from k8s.workloads import Workload, of_kind, workloads
from monitoring.exporter import Exporter
from monitoring.report.export import export
from monitoring.retraining.decide import Decision, remember
from monitoring.settings import MonitoringConfig
from monitoring.store.database import Store
from monitoring.store.rows import micros
from monitoring.users.interactions import write_interactions
from tests.k8s.conftest import Documents
from tests.k8s.references import environment, expanded, referenced
from tests.monitoring.conftest import postgres  # noqa: F401  (a fixture)
from tests.monitoring.servers import SECRET, Postgres, feedback, free_port, wait_until

ROLES = tuple(f"newfound_{name}" for name in ("decide", "erase", "exporter", "import", "report", "retain", "verdict"))


def workload(documents: Documents, component: str) -> Workload:
    (found,) = [one for one in workloads(documents) if one.component == component]
    return found


def file_of(documents: Documents, config: str, key: str) -> str:
    configs = [one for one in of_kind(documents, "ConfigMap") if one["metadata"]["name"].startswith(f"{config}-")]
    (found,) = [one["data"][key] for one in configs if key in one["data"]]
    return str(found)


@pytest.fixture
def redis(production: Documents, tmp_path: Path) -> Iterator[tuple[Workload, dict[str, str], int]]:
    """Redis as the StatefulSet starts it, with its settings and its password."""
    if shutil.which("redis-server") is None:
        pytest.skip("Redis is not installed (apt-get install redis-server)")
    one, port = workload(production, "redis"), free_port()
    settings = file_of(production, "newfound-redis", "redis.conf").replace("/data", str(tmp_path))
    (tmp_path / "redis.conf").write_text(f"{settings}bind 127.0.0.1\nport {port}\n")
    container = one.containers[0]
    script = container["args"][0].replace("/tmp/redis.conf", "own.conf").replace("/config/redis.conf", "redis.conf")
    known = {**os.environ, "REDIS_PASSWORD": "secret-word", "REDISCLI_AUTH": "secret-word"}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([*container["command"], script], cwd=tmp_path, env=known, stdout=log, stderr=log)
    try:
        yield one, known, port
    finally:
        process.send_signal(signal.SIGTERM)  # to the server itself: the shell has become it
        assert process.wait(20) == 0
    assert list(tmp_path.glob("appendonlydir/*.aof")), "rows live through a restart"
    assert (tmp_path / "own.conf").stat().st_mode & 0o077 == 0, "the password is for nobody else"


def test_redis_starts_asks_for_the_password_and_passes_its_probes(redis: Any) -> None:
    one, known, port = redis

    def probe(variables: dict[str, str]) -> int:
        command = one.containers[0]["readinessProbe"]["exec"]["command"]
        command = [part.replace("redis-cli", f"redis-cli -p {port}") for part in command]
        return subprocess.run(command, env=variables).returncode

    wait_until(lambda: probe(known) == 0, 20, "redis")
    assert probe({**known, "REDISCLI_AUTH": "another"}) != 0
    client = pytest.importorskip("redis").Redis(port=port, password="secret-word")
    assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    client.set("a", "row")


@pytest.fixture
def database(postgres: Postgres, production: Documents) -> Iterator[Postgres]:  # noqa: F811
    """PostgreSQL as it is after the image's first start, which runs the scripts of the ConfigMap in a shell."""
    known = {**os.environ, "PATH": f"{postgres.bin}:{os.environ['PATH']}", "PGHOST": "127.0.0.1"}
    passwords = {"NEWFOUND_PASSWORD": "it's one", "OPTUNA_PASSWORD": "another"}
    passwords |= {f"{role.removeprefix('newfound_').upper()}_PASSWORD": "a third" for role in ROLES}
    known |= {"PGPORT": str(postgres.port), "POSTGRES_USER": "postgres", **passwords}
    script = file_of(production, "newfound-postgres", "roles.sh")
    subprocess.run(["bash", "-euc", script], env=known, check=True)
    yield postgres
    drop_roles(postgres)


def drop_roles(server: Postgres) -> None:
    """Takes away what the first start made, for the next test of the same server."""
    at = ["-h", "127.0.0.1", "-p", str(server.port), "-U", "postgres"]
    for name in ("newfound", "optuna"):
        server.run("dropdb", *at, name)
    for name in (*ROLES, "newfound", "optuna"):
        server.run("dropuser", *at, "--if-exists", name)
    server.run("psql", *at, "-c", "GRANT CONNECT ON DATABASE postgres, template1 TO PUBLIC")


def test_a_backup_is_made_and_brings_everything_back(database: Postgres, production: Documents, tmp_path: Path) -> None:
    url = f"postgresql+psycopg://newfound@127.0.0.1:{database.port}/newfound"
    store = Store(url, SECRET.encode())
    store.write([feedback(number) for number in range(50)])
    before = sorted(row.id for rows in store.after(_table(), 0, 1000) for row in rows)
    assert len(before) == 50
    backup = workload(production, "backup").containers[0]
    script = backup["args"][0].replace("/backups", str(tmp_path))
    old = tmp_path / "newfound-20200101T000000Z.dump"
    old.touch()
    os.utime(old, (0, 0))
    known = {
        **os.environ,
        "PATH": f"{database.bin}:{os.environ['PATH']}",
        "PGHOST": "127.0.0.1",
        "PGPORT": str(database.port),
        "PGUSER": "postgres",
    }
    subprocess.run([*backup["command"], script], env=known, check=True)
    dumps = sorted(file.name.partition("-")[0] for file in tmp_path.iterdir())
    assert dumps == ["newfound", "optuna"], "both, whole, and the old one is gone"
    (dump,) = tmp_path.glob("newfound-*.dump")
    store.write([feedback(number) for number in range(50, 60)])
    store.close()
    restore = workload(production, "restore").containers[0]
    script = restore["args"][0].replace("/backups", str(tmp_path))
    subprocess.run([*restore["command"], script], env={**known, "DUMP": dump.name}, check=True)
    store = Store(url, SECRET.encode())
    assert sorted(row.id for rows in store.after(_table(), 0, 1000) for row in rows) == before
    assert store.write([feedback("new")]).new["feedback"] == 1, "and it goes on"
    store.close()


def test_each_role_has_its_own_database_and_no_other(database: Postgres) -> None:
    at = ["-h", "127.0.0.1", "-p", str(database.port)]
    for role, other in (("newfound", "optuna"), ("optuna", "newfound")):
        asked = "SELECT rolsuper OR rolcreaterole OR rolcreatedb FROM pg_roles WHERE rolname = current_user"
        command = [str(database.bin / "psql"), *at, "-U", role, "-tAc"]
        assert subprocess.run([*command, asked, role], capture_output=True, text=True).stdout.strip() == "f"
        refused = subprocess.run([*command, "SELECT 1", other], capture_output=True, text=True)
        assert refused.returncode != 0 and "permission denied for database" in refused.stderr


def test_each_workload_has_a_role_of_its_own(production: Documents) -> None:
    """By the URLs that the pods are given, and the Secrets' keys."""
    of_role: dict[str, str] = {}
    for one in workloads(production):
        for container in one.containers:
            url = environment(one, container, production).get("NEWFOUND_STORE", "")
            if url.startswith("postgresql"):
                role = url.partition("//")[2].partition(":")[0]
                assert of_role.setdefault(role, one.component) == one.component
                (key,) = [key for kind, name, key in referenced(one) if name == "newfound-postgres"]
                assert role == ("newfound" if key == "password" else f"newfound_{key}") and one.component == (
                    "collector" if key == "password" else key
                )
    assert set(of_role) == {"newfound", *ROLES}


def test_roles_may_do_what_their_workloads_do_and_no_more(database: Postgres, tmp_path: Path) -> None:
    """The workloads' own calls under their roles; then the privileges, as PostgreSQL has them."""

    opened = ExitStack()  # a database is not dropped while somebody is connected

    def store(role: str) -> Store:
        made = Store(f"postgresql+psycopg://{role}@127.0.0.1:{database.port}/newfound", SECRET.encode())
        opened.callback(made.close)
        return made

    with opened:
        now = datetime.now(UTC)
        collector = store("newfound")  # the first: it makes the tables
        collector.write([feedback(1), feedback(2)])
        row = {
            "start": micros(now - timedelta(days=1)),
            "stop": micros(now),
            "release": "all",
            "name": "x",
            "value": 1.0,
        }
        report, decide, exporter, bring = (
            store(f"newfound_{name}") for name in ("report", "decide", "exporter", "import")
        )
        report.put_measures(now - timedelta(days=1), now, [row])
        report.put_measures(now - timedelta(days=1), now, [row])
        export(report, tmp_path / "report")
        remember(decide, Decision("refresh", "because"), now, submitted=True)
        assert write_interactions(decide, MonitoringConfig(), str(tmp_path / "interactions.parquet")) > 0
        assert generate_latest(_registry(exporter))
        assert bring.import_interactions([("42", [("a", 1, 1.0, True)])]) == 1
        assert bring.import_interactions([("42", [("a", 1, 1.0, True)])]) == 1
        export(store("newfound_verdict"), tmp_path / "verdict")
        for name in ("erase", "retain"):
            acting = store(f"newfound_{name}")
            assert acting.erase("7", now)["feedback"] == 0 and acting.retain(1, now)["feedback"] == 0
            with acting.engine.connect() as connection:
                assert connection.scalar(text("SELECT current_user")) == "newfound", "and vacuums what it deletes"
        with collector.engine.connect() as connection:
            asked = text("SELECT grantee, table_name, privilege_type FROM information_schema.role_table_grants")
            held = {tuple(row) for row in connection.execute(asked) if row[0] in ROLES}
        assert ("newfound_exporter", "feedback", "SELECT") not in held, "it has no business with events"
        changing = {(who, name) for who, name, right in held if right != "SELECT"}
        assert changing == {
            ("newfound_report", "measures"),
            ("newfound_decide", "decisions"),
            ("newfound_import", "pasts"),
            ("newfound_verdict", "verdicts"),
        }
        with pytest.raises(ProgrammingError, match="permission denied"):
            exporter.counts()
        with pytest.raises(ProgrammingError, match="permission denied"):
            report.write([feedback(3)])


def _registry(store: Store) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(Exporter(store))
    return registry


def test_postgres_is_ready_when_its_probe_says_so(database: Postgres, production: Documents) -> None:
    probe = workload(production, "postgres").containers[0]["readinessProbe"]["exec"]["command"]
    command = [str(database.bin / probe[0]), *probe[1:], "--host=127.0.0.1"]
    assert subprocess.run([*command, f"--port={database.port}"]).returncode == 0
    assert subprocess.run([*command, f"--port={free_port()}"]).returncode != 0


READ = """
import asyncio, sys
sys.modules["torch"] = None
from pathlib import Path
from serving.explorer.features import Features
print(list(asyncio.run(Features(Path("feature_repo"), 1000).read("42")).item_ids))
"""


@pytest.mark.slow  # three processes that import Feast; `make manifests` runs it
def test_the_local_job_fills_redis_for_the_explorer(redis: Any, rendered: Any, tmp_path: Path) -> None:
    """Feast's own commands, as the Job runs them, with the password that Redis asks for; then the explorer's read."""
    _, known, port = redis
    answers = ["redis-cli", "-p", str(port), "ping"]
    wait_until(lambda: b"PONG" in subprocess.run(answers, env=known, capture_output=True).stdout, 20, "redis")
    at = [datetime(2026, 1, 1, tzinfo=UTC)]
    history = {
        "user_id": ["42"],
        "event_timestamp": pa.array(at, pa.timestamp("us", tz="UTC")),
        "item_ids": [["a", "b"]],
        "times": pa.array([[1, 2]], pa.list_(pa.int64())),
        "engagements": pa.array([[1.0, 0.5]], pa.list_(pa.float32())),
        "positives": [[True, False]],
    }
    interests = {"seen_leaves": [["leaf"]], "clusters_digest": ["digest"]}
    for name, columns in (("user_history", history), ("user_interests", {**history, **interests})):
        (tmp_path / "features").mkdir(exist_ok=True)
        kept = [key for key in columns if name == "user_history" or key in ("user_id", "event_timestamp", *interests)]
        pq.write_table(pa.table({key: columns[key] for key in kept}), tmp_path / "features" / f"{name}.parquet")
    job = workload(rendered("local"), "features")
    container = job.containers[0]
    told = environment(job, container, rendered("local"))
    told = {name: value.replace("/data", str(tmp_path)).replace("/app", str(ROOT)) for name, value in told.items()}
    told["REDIS_PASSWORD"] = known["REDIS_PASSWORD"]
    (raw,) = [one["value"] for one in container["env"] if one["name"] == "NEWFOUND_REDIS"]
    told["NEWFOUND_REDIS"] = expanded(raw, told).replace("newfound-redis:6379", f"127.0.0.1:{port}")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    process = {**os.environ, **told, "PATH": path, "PYTHONPATH": str(ROOT)}
    folder = container["workingDir"].replace("/app", str(ROOT))
    done = subprocess.run(
        [*container["command"], *container["args"]], cwd=folder, env=process, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    read = subprocess.run([sys.executable, "-c", READ], cwd=ROOT, env=process, capture_output=True, text=True)
    assert read.stdout.strip() == "['a', 'b']", read.stderr[-2000:]


def _table() -> Any:
    from monitoring.store.tables import feedback as table

    return table
