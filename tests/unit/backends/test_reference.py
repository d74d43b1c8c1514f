"""The reference of another engine's self-check: right states pass, those of other sentences do not."""

from __future__ import annotations

import numpy as np
import pytest

from drillcore.backends.base import all_states
from drillcore.backends.source import locate
from drillcore.backends.vllm.reference import Reference
from drillcore.job.extract import Extract
from drillcore.job.model import Model
from drillcore.tokens.sequences import Sequences
from support.backends import open_transformers
from support.plain import random_sentences
from support.tiny import VOCAB


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("architecture", "wanted"), [("llama", "all"), ("gemma2", "all"), ("mixtral", [0, 2])])
def test_states_of_these_sentences_pass_and_others_fail(architecture, wanted, dtype, models, tmp_path, seed):
    folder = models(architecture)
    sentences = Sequences.of(random_sentences(seed, VOCAB, count=5))
    backend, _ = open_transformers(folder, wanted, dtype=dtype, threads=1)
    states_CKH = all_states(backend, sentences)
    layers = range(5) if wanted == "all" else wanted
    source = locate(Model(id=str(folder)), tmp_path)
    reference = Reference(source, Extract(dtype=dtype, threads=1), layers, sentences)
    check = reference.check(states_CKH, "another", ())
    assert check.passed, check.failure
    assert sorted(check.relative_error) == list(layers) and (check.rounding is None) == (dtype == "float32")
    assert not reference.check(np.roll(states_CKH, 1, axis=0), "another", ()).passed
    assert reference.head_problem() == ""
