"""The command refuses what does not go with streamed weights, and writes nothing; `auto` keeps a model resident."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zarr
from test_wrong_values import NO_WEIGHTS

from support.compressed import write_compressed
from support.ggufs import write_gguf
from support.runs import snapshot

pytest_plugins = ["support.run_fixtures"]

NTK = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
# No model fits, so that `auto` streams whatever it may.
NO_ROOM = """
from drillcore.backends.transformers.streamed import choice
choice.allowed_memory_bytes = lambda: 1000
"""


def with_gguf(llama: Path, folder: Path) -> dict[str, Any]:
    shutil.copytree(llama, folder)
    write_gguf(llama, folder / "model-q8.gguf", "Q8_0")
    return {"id": str(folder), "gguf_file": "model-q8.gguf"}


def with_adapter(llama: Path, folder: Path) -> dict[str, Any]:
    from support.adapters import write_adapter

    file = write_adapter(llama, folder, seed=0) / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), "init_lora_weights": "pissa"}))
    return {"adapter": str(folder)}


def quantised(llama: Path, folder: Path) -> dict[str, Any]:
    return {"id": str(write_compressed(llama, folder))}


SETTINGS = [
    ({"backend": "vllm"}, "needs backend: transformers, not vllm"),
    ({"backend": "auto"}, "needs backend: transformers, not auto"),
    ({"tensor_parallel": 2}, "does not go with tensor_parallel: 2"),
    ({"compile": "on"}, "does not go with compile: on"),
    ({"merge": "on"}, "does not go with merge: on"),
]
# What a model's entry of the job has, or how to make it of a tiny llama in a folder; and what is said of it.
Model = dict[str, Any] | Callable[[Path, Path], dict[str, Any]]
MODELS: list[tuple[str, Model, str]] = [
    ("random_weights", {"random_weights": True}, "does not go with random_weights"),
    ("device_map", {"device_map": "cpu"}, "does not go with device_map"),
    ("quantization", {"quantization": "torchao-int8"}, "does not go with quantization"),
    ("trust_remote_code", {"trust_remote_code": True}, "does not go with trust_remote_code"),
    ("gguf_file", with_gguf, "does not go with gguf_file"),
    ("dynamic NTK", {}, "does not go with dynamic NTK"),
]
# Those that are weights beside plain ones, or instead of them.
WEIGHTS: list[tuple[str, Model, str]] = [
    ("adapter", with_adapter, "does not go with an adapter that changes the model's own weights as it begins"),
    ("quantised", quantised, "does not go with quantised weights"),
]
EVERY = [pytest.param(*each, id=each[0]) for each in (*MODELS, *WEIGHTS)]


@pytest.fixture(scope="module")
def entries(models, tmp_path_factory):
    """Gives the entry of a model, made once."""
    made: dict[str, dict[str, Any]] = {}

    def entry(name: str, model: Model) -> dict[str, Any]:
        if name not in made:
            plain = models("llama", rope_parameters=NTK) if name == "dynamic NTK" else models("llama")
            more = model(plain, tmp_path_factory.mktemp("made") / "model") if callable(model) else model
            made[name] = {"id": str(plain), "as": "m", **more}
        return made[name]

    return entry


def job(new_work: Any, entry: dict[str, Any] | None = None, **extract: Any) -> Any:
    work = new_work(count=20, backend="transformers")
    if entry is not None:
        work.job["models"] = [entry]
    work.job["extract"] |= extract
    work.save()
    return work


def refused(work: Any, first: str = "") -> str:
    """What is said of a job that is refused, on one line, and then what to do."""
    before = snapshot(work.folder)
    command = work.run(first=NO_WEIGHTS + first)
    assert command.status == 2, (command.status, command.out, command.err)
    assert snapshot(work.folder) == before
    assert not command.out and "Traceback" not in command.err and command.err.count("drillcore: ") == 1, command.err
    return command.err


@pytest.mark.parametrize("streams", ["streamed", "auto"])
@pytest.mark.parametrize(("settings", "said"), SETTINGS, ids=lambda part: str(part)[:30])
def test_a_setting_is_refused(settings, said, streams, new_work):
    err = refused(job(new_work, weights=streams, **settings))
    assert f"extract.weights: {streams} {said}; " in err and "weights: resident" in err, err


@pytest.mark.parametrize(("name", "model", "said"), EVERY)
def test_a_model_is_refused(name, model, said, entries, new_work):
    err = refused(job(new_work, entries(name, model), weights="streamed"))
    assert re.search(rf"extract\.weights: streamed {re.escape(said)}", err), err
    assert "Set extract.weights: resident" in err


@pytest.mark.parametrize(("name", "model", "said"), EVERY)
def test_auto_keeps_the_model_resident(name, model, said, entries, new_work):
    work = job(new_work, entries(name, model), weights="auto")
    run = work.run(first=NO_ROOM)
    assert run.status == 0, run.err
    assert "streamed" not in run.err
    assert "weights" not in zarr.open_group(work.store, mode="r", use_consolidated=False)["m"].attrs["numerics"]


def test_auto_streams_a_plain_model_there(entries, new_work):
    work = job(new_work, entries("plain", {}), weights="auto")
    run = work.run(first=NO_ROOM)
    assert run.status == 0 and "its layers are streamed" in run.err, run.err


@pytest.mark.parametrize("streams", ["streamed", "auto"])
def test_greenlet_that_is_missing_is_named(streams, new_work):
    err = refused(job(new_work, weights=streams), first="import sys\nsys.modules['greenlet'] = None\n")
    assert f"extract.weights: {streams} needs greenlet, which is not installed" in err
    assert "pip install 'drillcore[transformers]'" in err
