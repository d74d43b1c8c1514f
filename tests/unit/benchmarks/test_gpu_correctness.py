"""The GPU benchmarks' check of states: the reference has the model's own weights, and the check can fail."""

from __future__ import annotations

import pytest
import torch

from benchmarks.gpu import correctness, models
from drillcore.tokens.sequences import Sequences


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """The toy in bfloat16, prepared, and sentences to check it with."""
    monkeypatch.setattr(models, "DTYPE", torch.bfloat16)
    source, backend = models.open_backend(models.CONFIGS["toy"], tmp_path, as_on_gpu=False)
    tokens = models.free_text(8, 512)
    backend.prepare(Sequences.of([]), None)
    yield source, backend, tokens
    backend.close()


def test_packed_states_are_right_and_both_controls_fail(opened):
    verdict = correctness.check(*opened)
    assert verdict["right"] and all(verdict["verdicts"].values())
    # bfloat16 has 8 bits: not float32 itself, and not another model.
    assert 1e-4 < verdict["alone"] < 0.1 and verdict["packed"] <= 1.5 * verdict["alone"]
    assert verdict["control_first_token"] > 3 * verdict["alone"]
    assert verdict["control_other_sentence"] > 0.5


def test_a_reference_with_weights_of_its_own_is_noticed(opened, monkeypatch):
    source, backend, tokens = opened
    monkeypatch.setattr(models, "SEED", 1)
    other = models.random_model(source, torch.float32).eval().get_decoder()
    monkeypatch.setattr(correctness, "exact_decoder", lambda *_: other)
    verdict = correctness.check(source, backend, tokens)
    assert not verdict["right"] and verdict["alone"] > 1


def test_wrong_packed_states_are_noticed(opened, monkeypatch):
    states = correctness.all_states

    def shifted(backend, tokens):
        wrong = states(backend, tokens)
        wrong[3, 2] *= 1.1
        return wrong

    monkeypatch.setattr(correctness, "all_states", shifted)
    verdict = correctness.check(*opened)
    assert not verdict["right"] and not verdict["verdicts"]["packed"]
