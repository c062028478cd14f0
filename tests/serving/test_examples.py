"""The examples in the documentation, run as they stand against the real services."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from tests.serving.store import ROOT

BLOCK = re.compile(r"```(sh|python)\n(.*?)```", re.DOTALL)
EXAMPLES = [
    pytest.param(language, code, id=f"{document}:{language}{at}")
    for document in ("README.md", "docs/serving.md")
    for at, (language, code) in enumerate(BLOCK.findall((ROOT / document).read_text()))
    if "localhost:80" in re.sub(r"#.*", "", code)  # those that ask; others work on a release of one's own
]


def test_there_are_examples_of_every_way_to_ask():
    codes = [str(example.values[1]) for example in EXAMPLES]
    for way in (
        "curl",
        "/v1/models/newfound:predict",
        "/v2/models/newfound/infer",
        "RESTClient",
        "GRPCClient",
        ":8082",
    ):
        assert any(way in code for code in codes), way


@pytest.mark.parametrize(("language", "code"), EXAMPLES)
def test_an_example_is_answered(stack, language, code):
    for told, here in (("8080", stack.url), ("8081", stack.grpc), ("8082", stack.ranker_url)):
        code = code.replace(f"localhost:{told}", here.removeprefix("http://"))
    code = code.replace("C00", "c")  # the made-up release names its clusters so
    command = ["bash", "-ec", code] if language == "sh" else [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    if language == "python":
        assert len(done.stdout.splitlines()) == 10
    else:
        answer = json.loads(done.stdout)
        assert "error" not in answer and answer.keys() & {"predictions", "outputs"}
