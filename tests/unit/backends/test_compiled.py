"""Compiled decoder layers: one graph for each kind of layer and shape, the same states, and the same bytes again."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from backend_contract import collect
from pydantic import ValidationError

from conftest import require
from drillcore.backends.transformers import compiled
from drillcore.backends.transformers import flex_attention as flex
from drillcore.backends.transformers.compiled import Compilations
from drillcore.job.extract import Extract
from drillcore.job.file import load_job
from drillcore.tokens.sequences import Sequences
from support.backends import open_transformers
from support.plain import plain_states, random_sentences, relative_error

IN_SHORT = ("llama", "gemma3_text", "phi3")
IN_LONG = ("qwen2", "qwen3", "gemma", "gemma2", "mistral", "mixtral", "olmo2", "granite", "cohere", "starcoder2")
IN_LONG += ("gpt_neox", "smollm3", "phi")
WIDTH = 512


@pytest.fixture(autouse=True)
def compiler():
    if shutil.which("g++") is None:
        require("compiler", "PyTorch compiles for a CPU with g++")
    yield
    torch._dynamo.reset()


def fresh_block(draw, batches):
    """Sentences that fill so many rows of `WIDTH` nodes, and nothing more."""
    return Sequences.of([draw.integers(3, 384, 32).astype(np.int32) for _ in range(batches * WIDTH // 32)])


@pytest.mark.parametrize("architecture", [*IN_SHORT, *(pytest.param(name, marks=pytest.mark.long) for name in IN_LONG)])
def test_compiled_layers_equal_the_plain_way(architecture, models, seed):
    from transformers import AutoModelForCausalLM

    folder = models(architecture, **({"head_dim": 16} if architecture in ("llama", "qwen3", "mistral") else {}))
    backend, prepared = open_transformers(folder, compile="on", batch_tokens=WIDTH)
    assert prepared.numerics["compile"] == compiled.NAME and not prepared.notes, prepared.notes
    draw, layers = np.random.default_rng(seed), backend._loaded.decoder_layers
    kinds = {getattr(layer, "attention_type", "") for layer in list(layers)[:-1]}
    collect(backend, fresh_block(draw, 1))
    # The row of the batches and that of the longest siblings of the self-check, for each kind; the deepest is no graph.
    so_far = Compilations.so_far()
    assert so_far.breaks == 0 and prepared.compiled["breaks"] == 0
    assert len(kinds) <= prepared.compiled["graphs"] <= 4 * len(kinds) and prepared.compiled["seconds"] > 0
    assert "forward" in vars(layers[0]) and "forward" not in vars(layers[-1])
    work = backend.lay_out(fresh_block(draw, 50))
    assert len(work.parts) == 50
    for _ in backend.run(work):
        pass
    assert Compilations.so_far() == so_far
    sentences = random_sentences(seed, 384, longest=90)
    states = collect(backend, Sequences.of(sentences))
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    want = np.stack([plain_states(plain, s, states.shape[1] - 2) for s in sentences])
    assert relative_error(states, want).max() <= 1e-5


def test_references_run_with_the_layers_at_rest(models, monkeypatch):
    backend, prepared = open_transformers(models("llama", head_dim=16), compile="on", batch_tokens=WIDTH)
    assert "compile" in prepared.numerics

    def never(*_, **__):
        raise AssertionError("a reference ran through a compiled layer")

    for layer in list(backend._loaded.decoder_layers)[:-1]:
        vars(layer)["forward"] = never
    backend._compile._forwards = [never for _ in backend._compile._forwards]
    assert np.isfinite(backend.alone(Sequences.of([[5, 6, 7], [8]])).states_CKH).all()
    with pytest.raises(AssertionError, match="a reference ran"):
        collect(backend, Sequences.of([[5, 6, 7]]))


@pytest.mark.parametrize("error", [RuntimeError("Unsupported: a graph break\n  in a long trace"), None])
def test_a_model_that_cannot_be_compiled_runs_as_it_is(models, monkeypatch, error):
    def refused(*_, **__):
        raise error or torch._dynamo.exc.FailOnRecompileLimitHit("too many shapes")

    attention = torch.compile(flex.flex_attention, dynamic=False, backend="eager")
    monkeypatch.setattr(flex, "_compiled", attention)
    monkeypatch.setattr(compiled.torch, "compile", lambda forward, **_: refused)
    backend, prepared = open_transformers(models("llama", head_dim=16), compile="on", batch_tokens=WIDTH)
    assert "compile" not in prepared.numerics and prepared.numerics["attention"] == flex.NAME
    assert prepared.compiled == {} and "forward" not in vars(backend._loaded.decoder_layers[0])
    (note,) = prepared.notes
    assert "compiled: the model does not accept it" in note and "\n" not in note


def test_wrong_graphs_are_not_used(models, monkeypatch):
    real = torch.compile
    monkeypatch.setattr(
        compiled.torch, "compile", lambda forward, **_: lambda *a, **k: tuple_or_tensor(forward(*a, **k), 1.001)
    )
    monkeypatch.setattr(flex, "_compiled", real(flex.flex_attention, dynamic=False, backend="eager"))
    _, prepared = open_transformers(models("llama", head_dim=16), compile="on", batch_tokens=WIDTH)
    assert "compile" not in prepared.numerics and "relative error" in prepared.notes[0]


def tuple_or_tensor(output, factor):
    return (output[0] * factor, *output[1:]) if isinstance(output, tuple) else output * factor


@pytest.mark.parametrize("fields", [{"attention": "dense"}, {"layout": "padded"}])
def test_what_cannot_be_compiled_is_refused_in_the_job(fields):
    with pytest.raises(ValidationError, match="compile: on needs packs, and attention: flex or auto"):
        Extract(compile="on", **fields)


@pytest.mark.parametrize("written, meant", [("on", "on"), ("off", "off"), ("'on'", "on"), ("auto", "auto")])
def test_on_and_off_need_no_quotes(written, meant, tmp_path):
    (tmp_path / "d.txt").write_text("a\nb\n", encoding="utf-8")
    job = tmp_path / "job.yaml"
    job.write_text(f"models: [m]\ndatasets: {{d: d.txt}}\nextract: {{compile: {written}}}\n", encoding="utf-8")
    assert load_job(job).job.extract.compile == meant


SCRIPT = """
import hashlib, sys
import numpy as np
sys.path[:0] = sys.argv[2:]
from backend_contract import collect
from drillcore.tokens.sequences import Sequences
from support.backends import open_transformers
from support.plain import random_sentences
from pathlib import Path
backend, prepared = open_transformers(Path(sys.argv[1]), compile="on", batch_tokens=512)
assert "compile" in prepared.numerics, prepared.notes
states = collect(backend, Sequences.of(random_sentences(5, 384)))
print(hashlib.sha256(states.tobytes()).hexdigest())
"""


@pytest.mark.long
def test_two_processes_with_empty_caches_give_the_same_bytes(models, tmp_path: Path):
    tests, found = Path(__file__).parents[2], set()
    for number in range(2):
        environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / f"{number}")}
        folders = [str(tests), str(tests / "conformance")]
        command = [sys.executable, "-c", SCRIPT, str(models("llama", head_dim=16)), *folders]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        found.add(done.stdout.split()[-1])
        assert any((tmp_path / f"{number}").iterdir())
    assert len(found) == 1 and len(found.pop()) == len(hashlib.sha256().hexdigest())
