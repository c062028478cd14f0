"""Descriptions by a chat model, behind a server that answers as OpenAI's chat completions do."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pandas as pd
import pytest

from newfound.clusters.describe import Describer
from newfound.clusters.llm_describer import checked, write_by_llm
from newfound.clusters.tree import loads
from newfound.config import ClustersConfig


class Engine:
    """Answers by a list; `None` is a server error. It refuses what the upstream API refuses."""

    def __init__(self, answers):
        self.answers, self.asked = list(answers), []
        engine = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                # openai-openapi: model and messages are required, each message has a role and content.
                fits = self.path == "/v1/chat/completions" and {"model", "messages"} <= body.keys()
                fits = fits and all(message.keys() >= {"role", "content"} for message in body["messages"])
                engine.asked.append(body)
                answer = engine.answers.pop(0) if engine.answers else "Anything else"
                status = 400 if not fits else 500 if answer is None else 200
                content = {"choices": [{"index": 0, "message": {"role": "assistant", "content": answer}}]}
                raw = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *args):
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def engine():
    made = []

    def start(answers):
        made.append(Engine(answers))
        return made[-1]

    yield start
    for one in made:
        one.server.shutdown()


def describer():
    titles = ["Wooden railway bridge set for children", "Deluxe wooden railway tracks and bridges"]
    titles += ["World map puzzle for the whole family", "Dinosaur floor puzzle in a sturdy box"]
    items = pd.DataFrame({"item_id": list("abcd"), "title": titles, "text": [None] * 4, "categories": [[]] * 4})
    traffic = np.array([4, 3, 2, 1])
    return Describer(items, np.eye(4, dtype=np.float32), None, loads(traffic), traffic, 3), np.array([0, 0, 1, 1])


def config(engine, **changes):
    return ClustersConfig(describer="llm", describer_url=engine.url, **changes)


def test_what_the_model_names_is_taken_and_what_it_may_not_say_is_not(engine):
    asked = engine(['"Wooden railways."\n', "Puzzles 500"])
    made, labels = describer()
    assert write_by_llm(made, labels, {}, config(asked)) == {0: "Wooden railways"}
    assert "Deluxe wooden railway" in asked.asked[0]["messages"][1]["content"]


def test_two_clusters_do_not_share_a_name_and_fixed_ones_are_not_asked_for(engine):
    made, labels = describer()
    assert write_by_llm(made, labels, {}, config(engine(["Toys", "toys"]))) == {0: "Toys"}
    asked = engine(["Puzzles"])
    assert write_by_llm(made, labels, {0: "Trains"}, config(asked)) == {1: "Puzzles"}
    assert len(asked.asked) == 1


def test_an_engine_that_is_down_leaves_the_keyphrases(engine):
    made, labels = describer()
    assert write_by_llm(made, labels, {}, config(engine([None, None]))) == {}
    gone = ClustersConfig(describer="llm", describer_url="http://127.0.0.1:9")
    assert write_by_llm(made, labels, {}, gone) == {}


def test_answers_are_kept_so_that_nobody_is_asked_twice(engine, tmp_path):
    made, labels = describer()
    cache = str(tmp_path / "answers.json")
    first = engine(["Railways", "Puzzles"])
    found = write_by_llm(made, labels, {}, config(first, describer_cache=cache))
    again = engine([])
    assert (
        write_by_llm(made, labels, {}, config(again, describer_cache=cache)) == found == {0: "Railways", 1: "Puzzles"}
    )
    assert again.asked == []


@pytest.mark.parametrize("answer", ["", "   ", "42", "!!!", "x" * 500, "one two three four five six seven eight nine"])
def test_what_is_no_name_is_refused(answer):
    assert checked(answer, set()) is None


def test_a_describer_needs_a_url():
    with pytest.raises(ValueError, match="describer_url"):
        ClustersConfig(describer="llm")
