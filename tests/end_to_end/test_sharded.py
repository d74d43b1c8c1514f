"""A model that several processes share: its states are the whole model's, and it ends as one.

On a CPU, with two processes of one thread each; GPUs take the same way with another transport.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import drillcore
from drillcore.backends import check_backend, load_backend
from drillcore.backends.source import locate
from drillcore.backends.transformers import sharded, shards
from drillcore.errors import JobError, RunError, SelfCheckError
from drillcore.job.extract import Extract
from drillcore.job.model import Model
from drillcore.tokens.sequences import Sequences
from support.plain import relative_error
from support.runs import snapshot

pytest_plugins = ["support.run_fixtures"]
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="with GPUs, transformers shares a model over those")

TEXTS = ["The capital of France is", "Hello", "Hello there, rivers run", "The capital of Peru is not"]
LAYERS = (0, 1, 2, 3, 4)
SHARED = {"tensor_parallel": 2, "threads": 2}


def run(folder: Path, model: Path, **extract: Any) -> Any:
    """Run a job of a model; the opened store."""
    (folder / "d.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in TEXTS), encoding="utf-8")
    job = {"store": str(folder / "job.zarr"), "models": [{"id": str(model), "as": "m"}], "datasets": {"d": "d.jsonl"}}
    (folder / "job.yaml").write_text(
        json.dumps({**job, "extract": {"positions": ["last", "mean"], **extract}}), encoding="utf-8"
    )
    drillcore.run(folder / "job.yaml", stages=["extract"])
    return drillcore.open(folder / "job.zarr")


def numerics(folder: Path) -> Any:
    return json.loads((folder / "job" / "manifest.json").read_text(encoding="utf-8"))["models"]["m"]


def peers() -> list[int]:
    """Processes that are part of a model in shards beside the first, on this machine."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"drillcore.backends.transformers.shard" in words:
            found.append(int(path.parent.name))
    return found


def children(pid: int) -> list[int]:
    """Those that this process started."""
    return [p for p in peers() if parent_of(p) == pid]


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[1])
    except OSError:
        return 0


def assert_gone(pid: int) -> None:
    until = time.monotonic() + 60
    while pid in peers():
        assert time.monotonic() < until, "the other process is still there"
        time.sleep(0.05)


@pytest.mark.parametrize("architecture", ["llama", "mixtral"])
def test_states_are_those_of_the_whole_model(architecture, models, tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    whole = run(tmp_path / "one", models(architecture), threads=2)
    shared = run(tmp_path / "two", models(architecture), **SHARED)
    for group in ("m/d", "m/d~mean"):
        found, wanted = (np.asarray(store[group].hidden_states.values, np.float64) for store in (shared, whole))
        assert found.shape == wanted.shape == (len(TEXTS), len(LAYERS), 32)
        assert relative_error(found, wanted).max() < 1e-5
    told = numerics(tmp_path / "two")
    assert told["numerics"]["tensor_parallel"] == 2 and told["numerics"]["threads"] == 1
    assert "tensor_parallel" not in numerics(tmp_path / "one")["numerics"]
    assert any("in 2 shards; within" in note for note in told["notes"])
    assert not children(os.getpid())


def test_a_lower_precision_is_checked_in_float32_by_all_processes(models, tmp_path):
    store = run(tmp_path, models(), **SHARED, dtype="bfloat16")
    assert np.isfinite(store["m/d"].hidden_states.values).all()
    assert numerics(tmp_path)["numerics"]["dtype"] == "bfloat16"
    assert numerics(tmp_path)["self_check"]["worst_relative_error"] < 1e-5


def test_states_stay_when_another_number_of_processes_goes_on(models, tmp_path):
    """As with another device or number of threads: those are as good."""
    before = np.asarray(run(tmp_path, models(), **SHARED)["m/d"].hidden_states.values)
    committed = snapshot(tmp_path / "job.zarr" / "m" / "d" / "hidden_states")
    after = np.asarray(run(tmp_path, models(), threads=2)["m/d"].hidden_states.values)
    assert (before == after).all() and snapshot(tmp_path / "job.zarr" / "m" / "d" / "hidden_states") == committed


@pytest.fixture
def source(models) -> Any:
    return locate(Model(id=str(models())), Path("/"))


@pytest.mark.parametrize("moment", ["between passes", "during a pass"])
def test_a_process_that_dies_ends_the_model(moment, source):
    backend = load_backend("transformers", source, Extract(**SHARED), LAYERS)
    try:
        sentences = Sequences.of([[1, 5, 6, 7], [1, 9]])
        backend.prepare(sentences, None)
        work = backend.lay_out(sentences)
        assert len(list(backend.run(work)))
        (peer,) = children(os.getpid())
        if moment == "between passes":
            os.kill(peer, signal.SIGKILL)
        else:
            first_layer = backend._loaded.decoder_layers[0]
            first_layer.register_forward_hook(lambda *_: os.kill(peer, signal.SIGKILL))
        for _ in range(2):
            with pytest.raises(RunError, match="over 2 processes, failed: process 2 was killed by signal 9") as failed:
                list(backend.run(work))
        assert failed.value.hint
    finally:
        backend.close()


def test_only_one_model_of_a_process_is_in_shards(source):
    backend = load_backend("transformers", source, Extract(**SHARED), LAYERS)
    try:
        with pytest.raises(RunError, match="this process is part of a torch distributed group already"):
            load_backend("transformers", source, Extract(**SHARED), LAYERS)
    finally:
        backend.close()
    assert not children(os.getpid())


def test_shards_that_give_other_states_than_the_whole_model_are_refused(source, models, monkeypatch):
    """The self-check's own reference is in shards: this comparison alone would tell."""
    other, whole = locate(Model(id=str(models(seed=1))), Path("/")), sharded.alone_states
    monkeypatch.setattr(sharded, "alone_states", lambda source, *rest: whole(other, *rest))
    with pytest.raises(SelfCheckError, match="its states in 2 shards are not the whole model's"):
        load_backend("transformers", source, Extract(**SHARED), LAYERS)
    assert not children(os.getpid())


def test_without_memory_for_the_whole_model_it_says_so(source, monkeypatch):
    monkeypatch.setattr(sharded, "free_memory_bytes", lambda: 1)
    backend = load_backend("transformers", source, Extract(**SHARED), LAYERS)
    try:
        notes = backend.prepare(Sequences.of([[1, 5, 6, 7]]), None).notes
        assert any("not compared with the whole model" in note for note in notes)
    finally:
        backend.close()


@pytest.fixture
def work(new_work):
    return new_work(count=40, backend="transformers")


def started(work: Any) -> tuple[Any, int]:
    """A command, and its other process."""
    work.job["extract"] |= SHARED
    work.save()
    command = work.start()
    command.wait_for(lambda: bool(children(command.pid)))
    return command, children(command.pid)[0]


def test_a_killed_process_ends_the_run_with_one_message(work):
    command, peer = started(work)
    os.kill(peer, signal.SIGKILL)
    assert command.wait(60) in (1, 2)
    assert command.err.count("process 2 was killed by signal 9") == 1 and "Traceback" not in command.err
    work.job["extract"] |= {"tensor_parallel": 1}
    work.save()
    work.finish()


def test_a_process_that_dies_before_it_hears_anything_is_told_of(source, monkeypatch):
    first = shards._Peer.send

    def send(peer, message):
        peer.process.kill()
        peer.process.wait()
        # More than a pipe holds, so that writing it fails.
        first(peer, message + b" " * 2**20)

    monkeypatch.setattr(shards._Peer, "send", send)
    with pytest.raises(RunError, match="process 2 was killed by signal 9"):
        load_backend("transformers", source, Extract(**SHARED), LAYERS)
    assert not children(os.getpid())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_the_other_process_ends_with_the_run(number, work):
    command, peer = started(work)
    os.kill(command.pid, number)
    assert command.wait(60) == (-9 if number == signal.SIGKILL else 130)
    assert_gone(peer)
    assert "Traceback" not in command.err


WRONG = [
    ({"threads": 1}, {}, "the 2 processes would share 1 CPU threads"),
    ({"compile": "on"}, {}, "extract.compile: on does not go with extract.tensor_parallel"),
    ({"merge": "on"}, {}, "extract.merge: on does not go with"),
    ({"attention": "flex"}, {}, "extract.attention: flex does not go with"),
    ({"tensor_parallel": 3, "threads": 3}, {}, "is 3, and its 4 attention heads cannot be shared evenly"),
    ({"tensor_parallel": 4, "threads": 4}, {}, "is 4, and its 2 key and value heads cannot be shared evenly"),
    ({}, {"device_map": "auto"}, "does not go with device_map"),
    ({}, {"random_weights": True}, "does not go with random_weights"),
    ({}, {"quantization": "torchao-int8"}, "does not go with quantization"),
]


@pytest.mark.parametrize("backend", ["transformers", "auto"])
@pytest.mark.parametrize(("extract", "model", "said"), WRONG)
def test_what_cannot_be_shared_is_refused(extract, model, said, backend, models):
    source = locate(Model(id=str(models()), **model), Path("/"))
    settings = Extract(**{"backend": backend, **SHARED, **extract})
    with pytest.raises(JobError, match=said) as refused:
        check_backend(backend, source, settings)
    assert refused.value.hint and refused.value.exit_status == 2


def test_a_model_without_a_plan_is_refused_before_anything_is_written(models, tmp_path):
    with pytest.raises(JobError, match="needs a plan, which transformers does not have for bloom"):
        run(tmp_path, models("bloom"), **SHARED)
    assert not (tmp_path / "job.zarr").exists() and not (tmp_path / "job").exists()


@pytest.mark.parametrize("backend", ["transformers", "auto"])
def test_a_cluster_is_refused(backend, models, tmp_path):
    (tmp_path / "d.jsonl").write_text('{"text": "a"}', encoding="utf-8")
    job = {
        "models": [str(models())],
        "datasets": {"d": str(tmp_path / "d.jsonl")},
        "extract": {**SHARED, "backend": backend},
    }
    with pytest.raises(JobError, match=r"does not go with run\.executor: ray"):
        drillcore.run({**job, "store": str(tmp_path / "job.zarr"), "run": {"executor": "ray"}}, stages=["extract"])
    assert not (tmp_path / "job.zarr").exists()
