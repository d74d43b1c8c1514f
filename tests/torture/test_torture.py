"""A few trials of each part of `make torture`, chosen anew each time, on a store that a real model filled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from torture.damage import other
from torture.operations import half_written

TESTS = Path(__file__).parents[1]


def torture(*arguments: str, seed: int) -> str:
    """Run the command; what it printed. Fails where a trial went wrong."""
    command = [sys.executable, "-m", "torture", "--short", "--seed", str(seed), *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(600)
def test_shards_killed_between_operations(seed):
    assert "one shard: 40 of " in torture("--part", "shard", "--total", "40", seed=seed)


@pytest.mark.timeout(900)
def test_damage_and_kills(seed):
    said = torture("--part", "files", "--part", "kills", "--each", "1", "--total", "8", seed=seed)
    assert "files: 8 of " in said and "kills: " in said


def test_changed_values_are_others():
    for value in (True, 3, 0.5, "ab", "", [1, 2], [], {"a": None}, {}, None):
        assert other(value) != value


def test_a_renamed_file_is_not_half_written():
    before = {"a.partial": b"whole"}
    assert list(half_written(before, {"a": b"whole"})) == []
    assert list(half_written(before, {"a.partial": b"more of it"})) == [{"a.partial": b"more "}]
