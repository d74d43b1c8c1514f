"""Jobs on real vLLM that are stopped leave no process and resume with the same bytes.

Runs in vLLM's own environment (make test-vllm).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml

from support.vllm import workers

pytest_plugins = ["support.vllm_fixtures"]
pytestmark = pytest.mark.usefixtures("installed_vllm")


def write_job(folder: Path, model: str, count: int) -> Path:
    """A job over sentences that share beginnings, in shards of 16."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    words = ["the", "city", "of", "river", "old", "north", "lies", "near", "a", "port"]
    rows = [
        {"text": f"{' '.join(draw.choice(words, 8))} {i}", "label": str(draw.choice(words[:2]))} for i in range(count)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    job = {
        "name": "vllm",
        "store": "store.zarr",
        "models": [{"id": model, "as": "m"}],
        "datasets": [{"name": "rows", "path": "rows.jsonl"}],
        "extract": {
            "backend": "vllm",
            "dtype": "float32",
            "shard_sentences": 16,
            "block_sentences": 16,
            "batch_tokens": 128,
            "threads": 2,
        },
        "measure": {"permutations": 10, "sample": 200},
        "project": {"method": "pca"},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job), encoding="utf-8")
    return folder / "job.yaml"


def start_job(job: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "drillcore", "run", job.name],
        cwd=job.parent,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A shell that runs the tests in its background has them ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def finish_job(job: Path) -> dict[str, Any]:
    """Run it to the end; what the manifest says of the model."""
    running = start_job(job)
    output, _ = running.communicate(timeout=600)
    assert running.returncode == 0, output
    # Python's own tracker of shared memory ends a moment after its last user.
    wait_for(lambda: not processes_of(running.pid), seconds=30)
    assert list((job.parent / "store").glob("**/*.png")), output
    return json.loads((job.parent / "store" / "manifest.json").read_text(encoding="utf-8"))["models"]["m"]


def files_of(job: Path, name: str) -> list[Path]:
    """Files of an array that are whole."""
    paths = (job.parent / "store.zarr" / "m" / "rows" / name / "c").glob("**/*")
    return [path for path in paths if path.suffix != ".partial" and not path.is_dir()]


def states_of(job: Path) -> dict[str, bytes]:
    files = [*files_of(job, "hidden_states"), *files_of(job, "shard_fingerprint")]
    return {str(path.relative_to(job.parent)): path.read_bytes() for path in files}


def num_committed(job: Path) -> int:
    return len(files_of(job, "shard_fingerprint"))


def processes_of(group: int) -> list[psutil.Process]:
    """Processes of a session that live."""
    processes = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                processes.append(process)
        except (OSError, psutil.NoSuchProcess):
            continue
    return processes


def wait_for(what, seconds=300.0):
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "did not happen"
        time.sleep(0.005)


NUM_SENTENCES = 3000


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny):
    """States of a job that nothing disturbed, and its numerics."""
    job = write_job(tmp_path_factory.mktemp("jobs") / "whole", str(tiny("llama")), NUM_SENTENCES)
    facts = finish_job(job)
    return states_of(job), facts["numerics"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "whom"),
    [(signal.SIGKILL, "the group"), (signal.SIGKILL, "the run alone"), (signal.SIGINT, "the group")],
    ids=["SIGKILL", "SIGKILL-alone", "Ctrl-C"],
)
def test_a_job_that_is_stopped_leaves_no_process_and_resumes(tmp_path, tiny, whole, number, whom):
    job = write_job(tmp_path / "stopped", str(tiny("llama")), NUM_SENTENCES)
    running = start_job(job)
    wait_for(lambda: num_committed(job) >= 3)
    assert workers(running.pid)
    # Ctrl-C reaches the terminal's whole group.
    (os.killpg if whom == "the group" else os.kill)(running.pid, number)
    output, _ = running.communicate(timeout=60)
    assert running.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL), output
    wait_for(lambda: not processes_of(running.pid), seconds=30)
    committed = num_committed(job)
    assert 3 <= committed < NUM_SENTENCES // 16
    facts = finish_job(job)
    assert facts["extract"]["sentences"] == NUM_SENTENCES - 16 * committed
    assert (states_of(job), facts["numerics"]) == whole


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_job_stopped_while_the_engine_starts_leaves_no_process(tmp_path, tiny, number):
    job = write_job(tmp_path / "stopped", str(tiny("llama")), 50)
    running = start_job(job)
    wait_for(lambda: workers(running.pid))
    os.killpg(running.pid, number)
    output, _ = running.communicate(timeout=60)
    assert running.returncode == 130 and "Run the same command again" in output, output
    wait_for(lambda: not processes_of(running.pid), seconds=30)
    assert num_committed(job) == 0
