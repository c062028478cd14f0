"""Logs: JSON lines without secrets, which hold nobody up."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time

from serving.http.logs import JsonLines

TALKATIVE = """
import logging, time, warnings
from serving.http.logs import set_up_logs
from serving.metrics import LOG_DROPPED
set_up_logs()
log = logging.getLogger("talkative")
began = time.monotonic()
for number in range(40_000):
    log.warning("line %d of many %s", number, "x" * 100)
warnings.warn("a warning is a line as well")
print(int(LOG_DROPPED._value.get()), round(time.monotonic() - began, 3), flush=True)
"""


def test_a_pipe_that_nobody_reads_freezes_nothing_and_what_is_lost_is_counted():
    process = subprocess.Popen([sys.executable, "-c", TALKATIVE], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    dropped, _ = process.stdout.readline().split()
    assert int(dropped) > 20_000
    assert process.wait(120) == 0, "nor does it keep the process from ending"
    lines = process.stderr.read().splitlines()
    assert len(lines) > 100 and json.loads(lines[0])["message"].startswith("line 0 of many")


def test_a_reader_gets_every_line_in_order():
    reading, writing = os.pipe()
    handler = JsonLines(writing, seconds=0.01)
    for number in range(300):
        handler.emit(logging.makeLogRecord({"msg": f"line {number}", "levelno": logging.INFO}))
    handler.flush()
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        lines = [json.loads(line)["message"] for line in stream]
    assert lines == [f"line {number}" for number in range(300)]


def test_an_error_is_named_by_type_and_place_alone():
    reading, writing = os.pipe()
    handler = JsonLines(writing)
    try:
        raise ValueError("what a client sent")
    except ValueError as error:
        record = logging.makeLogRecord(
            {"msg": "failed", "levelno": logging.ERROR, "exc_info": (ValueError, error, error.__traceback__)}
        )
    began = time.monotonic()
    handler.emit(record)
    line = os.read(reading, 10_000)
    assert time.monotonic() - began < 60 and b"client" not in line
    assert json.loads(line)["error"] == "ValueError" and "test_logs.py:" in json.loads(line)["at"]
