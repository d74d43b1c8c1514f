"""Streamed layers beside those that accelerate reads: what may end the comparison, and what ends the run."""

from __future__ import annotations

import errno
import re

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import LlamaModel

from drillcore.backends.transformers.streamed import proof
from drillcore.backends.transformers.streamed.layers import StreamedLayers
from drillcore.errors import ModelError, RunError
from support.backends import open_transformers
from tools.architectures.tiny import random_model

NOTE = "layers as streamed are not compared with accelerate's, which does not run them: "
FULL = OSError(errno.ENOSPC, "No space left on device")
SHORT = RuntimeError("[enforce fail at alloc_cpu.cpp:1] . DefaultCPUAllocator: can't allocate memory: you tried to")


def opened(models):
    backend, prepared = open_transformers(models("llama"), weights="streamed", threads=1)
    backend.close()
    return prepared


def raise_in_their_pass(monkeypatch, error: Exception) -> None:
    """Let the model raise an error where accelerate brings its layers."""
    forward = LlamaModel.forward

    def run(self, *args, **kwargs):
        if any(hasattr(module, "_hf_hook") for module in self.layers.modules()):
            raise error
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(LlamaModel, "forward", run)


def raise_in_our_hook(monkeypatch, number: int, error: Exception) -> None:
    """Let what keeps the states of a layer raise an error, when it is called for so many times."""
    first_tensor, calls = proof.first_tensor, []

    def kept(output):
        calls.append(0)
        if len(calls) == number:
            raise error
        return first_tensor(output)

    monkeypatch.setattr(proof, "first_tensor", kept)


@pytest.fixture
def closed(monkeypatch):
    """How often the files of streamed layers were closed."""
    close, calls = StreamedLayers.close, []
    monkeypatch.setattr(StreamedLayers, "close", lambda self: (calls.append(0), close(self)))
    return calls


def test_a_comparison_that_runs_has_no_note(models):
    assert not any("accelerate" in note for note in opened(models).notes)


@pytest.mark.parametrize(
    "error", [ValueError("meta tensors"), RuntimeError("two devices"), KeyError("weight"), Exception("any")]
)
def test_an_architecture_that_accelerate_does_not_run_is_told_of(error, models, monkeypatch):
    raise_in_their_pass(monkeypatch, error)
    assert any(note.startswith(NOTE) and note.endswith(str(error)) for note in opened(models).notes)


def test_an_error_of_ours_in_their_pass_is_raised(models, monkeypatch, closed):
    raise_in_their_pass(monkeypatch, ModelError("ours"))
    with pytest.raises(ModelError, match="ours"):
        opened(models)
    assert closed, "the files of the model are closed"


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("of the device"), MemoryError("of the host"), SHORT])
def test_too_little_memory_ends_the_run_plainly(error, models, monkeypatch, closed):
    raise_in_their_pass(monkeypatch, error)
    with pytest.raises(RunError, match=rf"cannot be compared .*: {re.escape(str(error))}") as caught:
        opened(models)
    assert "memory of cpu" in caught.value.hint and closed


@pytest.mark.parametrize("error", [FULL, SafetensorError("Error while serializing: No space left on device")])
def test_a_disk_that_is_full_ends_the_run_plainly(error, models, monkeypatch, closed):
    raise_in_their_pass(monkeypatch, error)
    with pytest.raises(RunError, match=r"cannot be compared .*: .*No space left on device") as caught:
        opened(models)
    assert "XDG_CACHE_HOME" in caught.value.hint and caught.value.exit_status == 1
    assert closed


@pytest.mark.parametrize(("kind", "converts"), [("llama", False), ("mixtral", True)])
def test_weights_that_transformers_would_write_need_room_on_the_disk(kind, converts, tmp_path, monkeypatch):
    """It writes those that it merges; where there is no room for them all, a note says so, and nothing is written."""
    random_model(kind, with_images=False).save_pretrained(tmp_path / "model")
    offloaded, written = proof._offloaded, []

    def seen(source, loaded, folder):
        parts = offloaded(source, loaded, folder)
        tensors = [values for path in folder.rglob("*.safetensors") for values in load_file(path).values()]
        written.append(sum(values.nbytes for values in tensors))
        return parts

    monkeypatch.setattr(proof, "_offloaded", seen)
    backend, prepared = open_transformers(tmp_path / "model", "hf", weights="streamed", threads=1)
    wanted = backend._loaded.streamed.converted_bytes
    assert written == [wanted] and (wanted > 0) == converts and not any("scratch" in note for note in prepared.notes)
    for free, told in ((wanted, False), (max(0, wanted - 1), converts)):
        written.clear()
        monkeypatch.setattr(proof, "allowed_disk_bytes", lambda folder, free=free: free)
        _, prepared = open_transformers(tmp_path / "model", "hf", weights="streamed", threads=1)
        assert any("transformers writes converted weights" in note for note in prepared.notes) == told
        assert written == ([] if told else [wanted])


def test_a_scratch_folder_that_cannot_be_made_ends_the_run_plainly(models, monkeypatch, tmp_path):
    (tmp_path / "drillcore").write_text("a file where the folder should be", encoding="utf-8")
    monkeypatch.setattr(proof, "cache_dir", lambda: tmp_path / "drillcore")
    with pytest.raises(RunError, match=r"cannot be compared"):
        opened(models)


@pytest.mark.parametrize("number", [1, 4, 6], ids=["ours", "accelerate's first layer", "accelerate's last layer"])
def test_a_fault_of_our_hook_is_raised_as_it_is_in_either_pass(number, models, monkeypatch):
    raise_in_our_hook(monkeypatch, number, ValueError("a fault of ours"))
    with pytest.raises(ValueError, match="a fault of ours"):
        opened(models)


def test_a_fault_in_what_compares_is_raised_as_it_is(models, monkeypatch):
    def fault(*states):
        raise IndexError("a fault of ours")

    monkeypatch.setattr(proof, "relative_errors", fault)
    with pytest.raises(IndexError, match="a fault of ours"):
        opened(models)
