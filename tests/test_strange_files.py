"""Damaged files of every kind that is read give a result or one line, within 5 s and 1 GB."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strange_files import ANNOTATIONS, SHARD, attempt, read, seeds

KINDS = (
    *("image", "label", "clip", "json", "coco", "yaml", "classes", "outline", "zip", "config", "weights"),
    *("familiarity", "card", "result", "pyramid", *(f"shards: {name}" for name in SHARD), *ANNOTATIONS),
)
EACH = 200
"""Files of each kind in the slow lane."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("strange")


@pytest.fixture(scope="module")
def valid(place):
    found = seeds(place)
    assert set(found) == set(KINDS)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_valid_files_are_read(kind, valid, place):
    for content in valid[kind]:
        read(kind, place / "valid", content)


@settings(
    max_examples=150, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 2**32))
def test_strange_files_give_a_result_or_a_line(kind, seed, valid, place):
    assert attempt(kind, valid[kind], seed, place) is None


@pytest.mark.slow
def test_strange_files_by_the_thousand_give_a_result_or_a_line():
    script = Path(__file__).parent / "strange_files.py"
    done = subprocess.run([sys.executable, script, "0", str(EACH)], capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line for line in lines if "wrong" in line] == []
    assert sum(line["read"] for line in lines) == EACH * len(KINDS) >= 2000
