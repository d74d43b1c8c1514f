"""What a program sets in PyTorch changes no state, and is as it was afterwards; its hooks are refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import pytest
import torch

import drillcore
from drillcore.backends.transformers.surroundings import PRODUCTS, pinned
from drillcore.errors import JobError
from support.tiny import tiny_model

SENTENCES = ["the river", "the river is near", "a", "an old city lies in the north of it"]


def state() -> list[Any]:
    """Everything that a program can set."""
    try:
        precision = torch.get_float32_matmul_precision()
    except RuntimeError:
        precision = "mixed"
    return [
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_autocast_enabled("cpu"),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        precision,
        *(place.fp32_precision for place in PRODUCTS),
    ]


@contextmanager
def set_back(change: Any, back: Any) -> Iterator[None]:
    change()
    try:
        yield
    finally:
        back()


def part_of_precision() -> Iterator[None]:
    matmul = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    return set_back(
        lambda: setattr(matmul, "fp32_precision", "bf16"), lambda: setattr(matmul, "fp32_precision", before)
    )


def default_dtype(dtype: torch.dtype) -> Any:
    return set_back(lambda: torch.set_default_dtype(dtype), lambda: torch.set_default_dtype(torch.float32))


def precision(name: str) -> Any:
    return set_back(
        lambda: torch.set_float32_matmul_precision(name), lambda: torch.set_float32_matmul_precision("highest")
    )


def deterministic() -> Any:
    return set_back(
        lambda: torch.use_deterministic_algorithms(True, warn_only=True),
        lambda: torch.use_deterministic_algorithms(False),
    )


PROGRAMS = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "medium": lambda: precision("medium"),
    "high": lambda: precision("high"),
    "one part": part_of_precision,
    "deterministic": deterministic,
    "meta": lambda: torch.device("meta"),
    "inference mode": torch.inference_mode,
    "no grad": torch.no_grad,
}


@pytest.fixture(scope="module")
def plain(models) -> np.ndarray:
    return drillcore.extract(str(models()), SENTENCES, threads=1).hidden_states.values


@pytest.mark.parametrize("name", PROGRAMS)
def test_states_are_those_of_a_program_that_sets_nothing(name, models, plain):
    with PROGRAMS[name]():
        before = state()
        states = drillcore.extract(str(models()), SENTENCES, threads=1).hidden_states.values
        assert state() == before
    assert states.tobytes() == plain.tobytes()


def test_inside_everything_is_as_in_a_fresh_process():
    fresh = state()
    with ExitStack() as stack:
        for name in ("autocast", "float64", "medium", "deterministic", "meta"):
            stack.enter_context(PROGRAMS[name]())
        with pinned():
            inside = state()
            assert inside[:6] == fresh[:6] and set(inside[6:]) <= {"none", "ieee"}


@pytest.mark.parametrize("register", ["register_module_forward_hook", "register_module_forward_pre_hook"])
def test_a_hook_on_every_module_is_refused_by_name(register, models):
    def watch(module, arguments, output=None):
        return None

    handle = getattr(torch.nn.modules.module, register)(watch)
    try:
        with pytest.raises(JobError, match=r"a hook for all modules: test_surroundings\..*watch"):
            drillcore.extract(str(models()), SENTENCES)
    finally:
        handle.remove()
    drillcore.extract(str(models()), SENTENCES)


def test_a_replaced_attention_function_is_refused_by_name(models):
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    def mine(*arguments, **named):
        raise AssertionError

    ALL_ATTENTION_FUNCTIONS["sdpa"] = mine
    try:
        with pytest.raises(JobError, match=r"attention function sdpa by test_surroundings\..*mine"):
            drillcore.extract(str(models()), SENTENCES)
    finally:
        del ALL_ATTENTION_FUNCTIONS["sdpa"]


def test_a_replaced_product_of_pytorch_is_refused_by_name(models, monkeypatch):
    """Some libraries of fast kernels are used in this way; padded batches and single sentences would agree."""
    exact = torch.nn.functional.scaled_dot_product_attention

    def rough(*arguments, **named):
        return exact(*arguments, **named).to(torch.bfloat16).float()

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", rough)
    with pytest.raises(JobError, match=r"scaled_dot_product_attention by test_surroundings\..*rough"):
        drillcore.extract(str(models()), SENTENCES, layout="padded")


@pytest.mark.parametrize("architecture", ["gemma2", "vaultgemma"])
def test_a_cap_on_attention_scores_is_never_dropped(architecture, tmp_path, monkeypatch, seed):
    """Attention through sdpa leaves it out and only warns."""
    import json

    from transformers import AutoModelForCausalLM, AutoTokenizer

    from support import tiny

    shape = {"num_key_value_heads": 2, "intermediate_size": 64, "head_dim": 8, "query_pre_attn_scalar": 8}
    monkeypatch.setitem(tiny.ARCHITECTURES, architecture, shape)
    folder = tiny_model(tmp_path / "model", architecture, seed=seed % 1000, attn_logit_softcapping=0.3)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "_attn_implementation": "sdpa"}), encoding="utf-8")
    states = drillcore.extract(str(folder), SENTENCES, threads=1).hidden_states.values[:, -1]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    eager = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for sentence, got in zip(SENTENCES, states, strict=True):
        with torch.inference_mode():
            want = eager.model(**tokenizer(sentence, return_tensors="pt")).last_hidden_state[0, -1].numpy()
        assert np.linalg.norm(got - want) < 1e-4 * np.linalg.norm(want)
