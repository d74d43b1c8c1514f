"""Lengths at which a model's behaviour changes: they are read from the configuration, sampled, and kept apart."""

from __future__ import annotations

import numpy as np
import pytest

from drillcore.backends.base import all_states
from drillcore.backends.layers import resolve_layers
from drillcore.backends.lengths import LengthRules, length_rules
from drillcore.backends.self_check import choose_sentences
from drillcore.backends.source import locate
from drillcore.backends.transformers.backend import TransformersBackend
from drillcore.job.extract import Extract
from drillcore.job.model import Model
from drillcore.tokens.packs import build_packs
from drillcore.tokens.sequences import Sequences
from drillcore.tokens.widths import PackRule
from support.plain import plain_states, relative_error
from support.tiny import VOCAB, tiny_config

LONG = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.0, 1.0, 1.0],
    "long_factor": [1.0, 4.0, 9.0, 16.0],
}
PHI3 = {"rope_parameters": LONG, "original_max_position_embeddings": 24, "max_position_embeddings": 96}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}


@pytest.fixture
def draw():
    seed = int(np.random.SeedSequence().entropy % 2**32)
    print(f"seed {seed}")
    return np.random.default_rng(seed)


def mixed_lengths(draw, lengths):
    """Random sentences of these lengths, half of them with the beginning of another."""
    made = [draw.integers(3, VOCAB, n).astype(np.int32) for n in lengths]
    for i in range(1, len(made), 2):
        cut = min(len(made[i]), len(made[i - 1])) // 2
        made[i][:cut] = made[i - 1][:cut]
    return made


def check_against_fresh_model(folder, sentences, layout="auto", dtype="float32"):
    """Extract the sentences in one block and compare each with a freshly loaded model on it alone."""
    from transformers import AutoModelForCausalLM

    source = locate(Model(id=str(folder)), folder)
    num_layers = source.facts.num_layers
    backend = TransformersBackend(source, Extract(layout=layout, dtype=dtype), resolve_layers("all", num_layers))
    prepared = backend.prepare(Sequences.of(sentences), None)
    states = all_states(backend, Sequences.of(sentences))
    worst = 0.0
    for ours, sentence in zip(states, sentences, strict=True):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
        worst = max(worst, relative_error(ours, plain_states(model, sentence, num_layers)).max())
    return worst, prepared


def test_lengths_are_read_from_the_configuration():
    longrope = length_rules(tiny_config("phi3", **PHI3, sliding_window=40))
    assert longrope == LengthRules((24, 40), (24,))
    dynamic = length_rules(tiny_config("llama", rope_parameters=DYNAMIC, max_position_embeddings=32))
    assert dynamic == LengthRules((32,), scaled_above=32)
    assert length_rules(tiny_config("gpt_neo")).thresholds == (16,)
    assert length_rules(tiny_config("llama")) == LengthRules()


@pytest.mark.parametrize("layout", ["auto", "padded"])
@pytest.mark.parametrize(
    ("architecture", "changes"),
    [("phi3", PHI3), ("llama", {"rope_parameters": DYNAMIC, "max_position_embeddings": 32})],
)
def test_positions_that_look_at_the_batch_change_no_neighbour(architecture, changes, layout, models, draw):
    lengths = [*draw.integers(1, 90, 14), 24, 25, 32, 33, 34, 34, 60, 60]
    worst, prepared = check_against_fresh_model(models(architecture, **changes), mixed_lengths(draw, lengths), layout)
    assert worst < 2e-5
    assert prepared.numerics["layout"] == ("packed" if layout == "auto" else "padded")
    assert any("positions depend on the longest sentence" in note for note in prepared.notes)


def test_a_window_that_counts_columns_takes_padded_batches(models, draw):
    folder = models("gpt_neo")
    trunk = draw.integers(3, VOCAB, 12)
    siblings = [np.concatenate([trunk, draw.integers(3, VOCAB, n)]).astype(np.int32) for n in (30, 20, 3, 2)]
    worst, prepared = check_against_fresh_model(folder, siblings)
    assert worst < 2e-5 and prepared.numerics["layout"] == "padded"
    assert any(note.startswith("packed with eager: relative error") for note in prepared.notes)


def test_batches_of_equal_length_are_right_for_every_scheme(models, draw):
    folder = models("phi3", **PHI3)
    worst, prepared = check_against_fresh_model(folder, mixed_lengths(draw, draw.integers(1, 60, 20)), "equal")
    assert worst < 2e-5 and prepared.numerics["layout"] == "equal"


def test_lengths_on_both_sides_of_what_the_job_reaches_are_sampled():
    rules = LengthRules((16, 40, 400))
    job = Sequences.of([np.arange(1, 51), [5, 6]])
    sentences = choose_sentences(job, VOCAB, 512, rules, widest_pack=0)
    lengths = sentences.apart.lengths_N.tolist()
    assert {16, 17, 40, 41, 50} <= set(lengths) and max(lengths) == 50
    assert [s.lengths_N.tolist() for s in sentences.together] == [[17] * 3, [41] * 3]
    # A pack of short siblings reaches further than its sentences, but not past a window that goes by depth.
    wide = choose_sentences(Sequences.of([[5]]), VOCAB, 512, rules, widest_pack=64, by_depth=40)
    assert [s.lengths_N.tolist() for s in wide.together] == [[17] * 2]
    # One that only a pack of many sentences reaches takes as many siblings as that needs.
    (family,) = choose_sentences(Sequences.of([[5]]), VOCAB, 64, LengthRules((400,)), widest_pack=1024).together
    assert set(family.lengths_N.tolist()) == {64} and 400 < build_packs(family, PackRule(1024)).num_nodes < 512
    # And where wide packs are computed in another way, siblings fill one.
    (family,) = choose_sentences(Sequences.of([[5]]), VOCAB, 8, narrow=128).together
    assert build_packs(family, PackRule(1024)).num_nodes > 128 and max(family.lengths_N) == 8


def test_the_longest_row_is_checked_uncut():
    sentences = choose_sentences(Sequences.of([np.arange(700) % 300 + 3, [4, 5]]), VOCAB, None)
    assert max(sentences.all().lengths_N) == 700
