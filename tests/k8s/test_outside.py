"""Stores of one's own outside of the cluster, by TLS: rendered, checked, and spoken to by real clients."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import kubernetes_validate
import pytest
from sqlalchemy.exc import OperationalError

from k8s.flows import ALWAYS, PRODUCTION, STORE, WHY, allowed, ungoverned
from k8s.kustomize import documents
from k8s.workloads import of_kind, services, workloads
from monitoring.store.database import Store
from tests.chain.certificates import Authority
from tests.k8s.conftest import Documents, with_last_components
from tests.k8s.references import environment, problems
from tests.k8s.servers import problems as misuses
from tests.k8s.test_schemas import KUBERNETES
from tests.k8s.test_stores import ROLES, file_of, workload
from tests.monitoring.conftest import postgres  # noqa: F401  (a fixture)
from tests.monitoring.servers import SECRET, Postgres, feedback, free_port, postgres_bin, wait_until

COMPONENTS = ("external-postgres", "external-redis", "private-object-store")
GONE = {"backup", "restore"}


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Documents:
    """Production with all three."""
    return documents(with_last_components(tmp_path_factory.mktemp("outside"), *COMPONENTS))


def test_each_renders_alone(tmp_path: Path) -> None:
    for name in COMPONENTS:
        assert documents(with_last_components(tmp_path / name, name))


def test_everything_fits_together_and_nothing_is_left_of_the_stores(outside: Documents) -> None:
    assert problems(outside) == [] and misuses(outside) == [] and ungoverned(outside) == []
    for one in outside:
        if one["apiVersion"] in ("v1", "apps/v1", "batch/v1", "networking.k8s.io/v1"):
            kubernetes_validate.validate(one, KUBERNETES, strict=True)
    assert of_kind(outside, "StatefulSet") == []
    assert not {"newfound-postgres", "newfound-redis"} & {one.name for one in services(outside)}
    assert not GONE & {one.component for one in workloads(outside)}


def test_the_flows_lead_outside(outside: Documents) -> None:
    flows = {(one.source, one.target) for one in allowed(outside) if not one.target.startswith("nobody")}
    inside = {pair for pair in WHY if pair[0] not in GONE and pair[0] != "newfound-pipelines"} | PRODUCTION
    identities = {pair for pair in flows if pair[1] == "the cloud's identities"}
    assert flows - identities == inside | ALWAYS.keys() | {("roles", "postgres")}
    assert {source for source, _ in identities} == {source for source, target in flows if target == STORE}


def test_whoever_speaks_to_a_store_has_its_authority(outside: Documents) -> None:
    """The file that its variables name is below a mount, and out of the component's own ConfigMap."""
    authorities = {
        "postgres.example.com": "/postgres-ca",
        "redis.example.com": "/redis-ca",
        "https://s3.": "/object-store-ca",
    }
    found = dict.fromkeys(authorities, 0)
    for one in workloads(outside):
        for container in one.containers:
            known = " ".join(environment(one, container, outside).values())
            mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            volumes = {volume["name"]: volume for volume in one.pod["volumes"]}
            for name, folder in authorities.items():
                assert (name in known) == (folder in mounts), (one.owner, name)
                if name in known:
                    assert f"{folder}/ca.crt" in known
                    assert volumes[mounts[folder]]["configMap"]["name"].startswith(f"newfound-{folder[1:]}-")
                    found[name] += 1
    assert found == {"postgres.example.com": 10, "redis.example.com": 3, "https://s3.": 11}, found


@pytest.fixture
def tls(postgres: Postgres, tmp_path: Path) -> Iterator[tuple[Postgres, Path]]:  # noqa: F811
    """The server with a certificate for the example's name, and its authority."""
    authority = Authority(tmp_path / "authority")
    paths = authority.issue("", host="postgres.example.com")
    for path, name in zip(paths, ("server.crt", "server.key"), strict=True):
        shutil.copy(path, postgres.data / name)
        if os.geteuid() == 0:
            shutil.chown(postgres.data / name, "postgres", "postgres")
        (postgres.data / name).chmod(0o600)
    _psql(postgres, "ALTER SYSTEM SET ssl = on; SELECT pg_reload_conf()")
    yield postgres, authority.root
    _psql(postgres, "ALTER SYSTEM RESET ssl; SELECT pg_reload_conf()")


def _psql(server: Postgres, script: str) -> None:
    command = [str(server.bin / "psql"), "-qv", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", str(server.port)]
    subprocess.run([*command, "-U", "postgres"], input=script, text=True, check=True, stdout=subprocess.DEVNULL)


@pytest.mark.skipif(postgres_bin() is None, reason="PostgreSQL is not installed (apt-get install postgresql)")
def test_postgres_is_spoken_to_by_its_checked_name(
    outside: Documents, tls: tuple[Postgres, Path], tmp_path: Path
) -> None:
    """The roles as the job makes them, by an administrator who is no superuser; then the collector's own URL."""
    server, root = tls
    _psql(server, "CREATE ROLE administrator LOGIN CREATEROLE CREATEDB")
    job = workload(outside, "roles")
    (container,) = job.containers
    known = environment(job, container, outside)
    assert (known["PGHOST"], known["PGSSLMODE"]) == ("postgres.example.com", "verify-full")
    told = {name: "word" for name in (one["name"] for one in container["env"]) if name.endswith("PASSWORD")}
    told |= {**known, "POSTGRES_USER": "administrator", "PGSSLROOTCERT": str(root), "PGPORT": str(server.port)}
    told |= {"PGHOSTADDR": "127.0.0.1", "PATH": f"{server.bin}:{os.environ['PATH']}"}
    (tmp_path / "roles.sh").write_text(file_of(outside, "newfound-postgres", "roles.sh"))
    script = container["args"][0].replace("/first", str(tmp_path))
    one = workload(outside, "collector")
    url = environment(one, one.containers[0], outside)["NEWFOUND_STORE"].replace(":5432", f":{server.port}")
    url += "&hostaddr=127.0.0.1"
    try:
        for _ in range(2):
            subprocess.run([*container["command"], script], env=told, check=True, capture_output=True)
        store = Store(url.replace("/postgres-ca/ca.crt", str(root)), SECRET.encode())
        assert store.write([feedback(1)]).new["feedback"] == 1
        store.close()
        other = Authority(tmp_path / "other").root
        for wrong in (url.replace("/postgres-ca/ca.crt", str(other)), url.replace("@postgres.", "@another.")):
            with pytest.raises(OperationalError, match="SSL error|does not match host name"):
                Store(wrong.replace("/postgres-ca/ca.crt", str(root)), SECRET.encode())
    finally:
        _psql(server, "DROP DATABASE IF EXISTS newfound; DROP DATABASE IF EXISTS optuna")
        for name in (*ROLES, "newfound", "optuna", "administrator"):
            _psql(server, f'DROP ROLE IF EXISTS "{name}"')


@pytest.mark.slow  # Feast's import; `make manifests` runs it
@pytest.mark.skipif(
    shutil.which("redis-server") is None, reason="Redis is not installed (apt-get install redis-server)"
)
def test_redis_is_spoken_to_by_its_checked_name(outside: Documents, tmp_path: Path) -> None:
    """Feast's own reading of the connection string."""
    from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
    from redis.exceptions import ConnectionError as Refused

    authority, port = Authority(tmp_path / "authority"), free_port()
    certificate, key = authority.issue("", host="localhost")
    command = ["redis-server", "--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no", "--save", ""]
    command += [
        "--tls-cert-file",
        str(certificate),
        "--tls-key-file",
        str(key),
        "--tls-ca-cert-file",
        str(authority.root),
    ]
    one = workload(outside, "explorer")
    said = environment(one, one.containers[0], outside)["NEWFOUND_REDIS"]
    said = said.replace("redis.example.com:6379", f"localhost:{port}")

    def ping(connection: str) -> bool:
        config = RedisOnlineStoreConfig(connection_string=connection)
        return bool(RedisOnlineStore()._get_client(config).ping())

    process = subprocess.Popen([*command, "--requirepass", "secret"], stdout=subprocess.DEVNULL, cwd=tmp_path)
    try:
        mine = said.replace("/redis-ca/ca.crt", str(authority.root))
        wait_until(lambda: _answers(ping, mine), 20, "redis")
        other = Authority(tmp_path / "other").root
        for wrong in (said.replace("/redis-ca/ca.crt", str(other)), mine.replace("ssl=true,", "")):
            with pytest.raises(Refused):
                ping(wrong)
    finally:
        process.terminate()
        process.wait(20)


def _answers(ping: Callable[[str], bool], connection: str) -> bool:
    from redis.exceptions import ConnectionError as Refused

    try:
        return ping(connection)
    except Refused:
        return False
