"""The upgrade of a PostgreSQL from before its roles, by the commands of docs/operations.md, against a real server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from monitoring.store.database import Store
from monitoring.store.tables import feedback as table
from tests.k8s.conftest import Documents
from tests.k8s.test_operations import BLOCKS
from tests.k8s.test_stores import ROLES, drop_roles, file_of, workload
from tests.monitoring.conftest import postgres  # noqa: F401  (a fixture)
from tests.monitoring.servers import SECRET, Postgres, feedback, postgres_bin, running_postgres

# kubectl, as far as the block needs it: a Secret in a file, and the container's shell with the variables of its pod.
KUBECTL: Final = """#!{python}
import json, os, subprocess, sys
from pathlib import Path
words, secret = sys.argv[1:], Path(os.environ["SECRET_FILE"])
known = json.loads(secret.read_text())
if "patch" in words:
    secret.write_text(json.dumps({{**known, **json.loads(words[-1])["stringData"]}}))
elif "exec" in words:
    assert "newfound-postgres-0" in words
    variables = {{name: known[key] for name, key in json.loads(os.environ["POD"]).items()}}
    command = [one.replace("/docker-entrypoint-initdb.d", os.environ["FIRST"]) for one in words[words.index("--") + 1:]]
    sys.exit(subprocess.run(command, env={{**os.environ, "POSTGRES_USER": "postgres", **variables}}).returncode)
"""
# What the first start ran, at two revisions: one superuser for everything, then two roles beside it.
FIRST: Final = "CREATE DATABASE newfound; CREATE DATABASE optuna;"
SECOND: Final = """
CREATE ROLE newfound LOGIN PASSWORD 'services';
CREATE ROLE optuna LOGIN PASSWORD 'studies';
CREATE DATABASE newfound OWNER newfound;
CREATE DATABASE optuna OWNER optuna;
REVOKE CONNECT ON DATABASE newfound, optuna, postgres, template1 FROM PUBLIC;
"""
STUDIES: Final = "CREATE TYPE state AS ENUM ('running'); CREATE TABLE trials (id serial, state state)"


def _sql(server: Postgres, user: str, database: str, script: str) -> None:
    command = [str(server.bin / "psql"), "-qv", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", str(server.port)]
    subprocess.run([*command, "-U", user, database], input=script, text=True, check=True, stdout=subprocess.DEVNULL)


@contextmanager
def _first(_: Postgres) -> Iterator[tuple[Postgres, dict[str, str]]]:
    with running_postgres("newfound") as server:
        _sql(server, "newfound", "postgres", FIRST)
        yield server, {"password": "word"}


@contextmanager
def _second(server: Postgres) -> Iterator[tuple[Postgres, dict[str, str]]]:
    _sql(server, "postgres", "postgres", SECOND)
    try:
        yield server, {"password": "word", "superuser": "word", "optuna": "word"}
    finally:
        drop_roles(server)


@pytest.mark.skipif(postgres_bin() is None, reason="PostgreSQL is not installed (apt-get install postgresql)")
@pytest.mark.parametrize("before", [_first, _second], ids=["one superuser", "two roles"])
def test_a_server_from_before_the_roles_gets_them_and_keeps_its_rows(
    before: Callable[..., object],
    postgres: Postgres,  # noqa: F811
    production: Documents,
    tmp_path: Path,
) -> None:
    (block,) = [one for one in BLOCKS if "roles.sh" in one]
    (pod,) = [workload(production, "postgres").containers]
    named = {one["name"]: one["valueFrom"]["secretKeyRef"]["key"] for one in pod[0]["env"] if "valueFrom" in one}
    (tmp_path / "roles.sh").write_text(file_of(production, "newfound-postgres", "roles.sh"))
    (tmp_path / "kubectl").write_text(KUBECTL.format(python=sys.executable))
    (tmp_path / "kubectl").chmod(0o755)
    with before(postgres) as (server, secret):  # type: ignore[attr-defined]
        if len(secret) == 1:  # as the text says
            block = block.replace("for key in", "for key in superuser optuna")
        (tmp_path / "secret").write_text(json.dumps(secret))
        url = f"postgresql+psycopg://{{}}@127.0.0.1:{server.port}/newfound"
        old = Store(url.format("newfound"), SECRET.encode())
        old.write([feedback(1)])
        old.close()
        _sql(server, "newfound" if len(secret) == 1 else "optuna", "optuna", STUDIES)
        told = {"SECRET_FILE": str(tmp_path / "secret"), "POD": json.dumps(named), "FIRST": str(tmp_path)}
        told |= {"PGHOST": "127.0.0.1", "PGPORT": str(server.port)}
        told["PATH"] = f"{tmp_path}:{server.bin}:{os.environ['PATH']}"
        for _ in range(2):  # and again, as when passwords change
            subprocess.run(["bash", "-euc", block], env={**os.environ, **told}, check=True)
        assert set(json.loads((tmp_path / "secret").read_text())) == set(named.values())

        collector = Store(url.format("newfound"), SECRET.encode())  # started anew: it gives the rights
        report, exporter = (Store(url.format(f"newfound_{name}"), SECRET.encode()) for name in ("report", "exporter"))
        try:
            assert [row.id for rows in report.after(table, 0, 10) for row in rows] == ["f1"]
            assert collector.write([feedback(2)]).new["feedback"] == 1
            with pytest.raises(ProgrammingError, match="permission denied"):
                exporter.counts()
            with collector.engine.connect() as connection:
                asked = text("SELECT rolname FROM pg_roles WHERE rolsuper AND rolcanlogin")
                assert connection.scalars(asked).all() == ["postgres"]
                there = connection.scalars(text("SELECT rolname FROM pg_roles WHERE rolcanlogin")).all()
                assert {"newfound", "optuna", *ROLES} <= set(there)
                owners = text("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'")
                assert connection.scalars(owners).all() == ["newfound"]
        finally:
            for one in (collector, report, exporter):
                one.close()
        own = "ALTER TYPE state ADD VALUE 'done'; ALTER TABLE trials ADD note text"
        _sql(server, "optuna", "optuna", own)
