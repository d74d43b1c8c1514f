"""Sizes of packs and batches: what memory and configuration allow, and what a job asks for."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from drillcore.backends.transformers import cpu_attention as products
from drillcore.backends.transformers import cpu_trees as trees
from drillcore.backends.transformers import flex_attention as flex
from drillcore.backends.transformers.device_memory import FEWEST_NODES, MOST_NODES, fitting_nodes, node_bytes
from drillcore.backends.transformers.packing import FAMILIES, pack_batches, pack_numerics
from drillcore.tokens.sequences import Sequences

GIB = 2**30


def config(**fields):
    made = SimpleNamespace(**fields)
    made.get_text_config = lambda decoder: made
    return made


# Hidden size, inner size, layers, GiB of weights in bfloat16.
MODELS = {"8b": (4096, 14_336, 34, 15), "1b": (2048, 8192, 18, 2.3), "135m": (576, 1536, 32, 0.25)}


@pytest.mark.parametrize(
    "model, card_gib, nodes",
    [
        ("8b", 80, 32_768),
        ("8b", 24, 16_384),
        ("8b", 18, 4096),
        ("1b", 8, 16_384),
        ("135m", 8, 32_768),
        ("8b", 15.1, 1024),
    ],
)
def test_a_batch_fits_the_card(model, card_gib, nodes):
    hidden, inner, layers, weights = MODELS[model]
    node = node_bytes(config(intermediate_size=inner), hidden, layers, 2)
    free = int((card_gib - weights) * GIB)
    assert fitting_nodes(free, node) == nodes
    assert nodes == FEWEST_NODES or nodes * node.total <= free
    assert nodes == MOST_NODES or 2 * nodes * node.total > 0.8 * free


def test_what_a_node_takes_follows_the_model():
    dense, routed = (
        node_bytes(config(intermediate_size=100, **more), 10, 4, 2) for more in ({}, {"num_experts_per_tok": 4})
    )
    assert routed.activations - dense.activations == 4 * 3 * 300 and routed.states == dense.states
    assert node_bytes(config(n_inner=None), 10, 4, 2) == node_bytes(config(intermediate_size=40), 10, 4, 2)
    assert node_bytes(config(ffn_dim=100), 10, 8, 4).states == 4 * node_bytes(config(ffn_dim=100), 10, 4, 2).states


def resolved(attention, batch_tokens="auto", **changes):
    settings = {"on_cpu": True, "hidden_size": 576, "memory_bytes": 24 * GIB, "fitting_nodes": 32_768, **changes}
    found = pack_numerics(attention, batch_tokens, **settings)
    assert found.pop("packs") == FAMILIES
    return found


def test_a_cpu_takes_narrow_batches_and_wide_packs():
    sizes = {"width": 64, "widest": 32_768, "attention_cost": 0.0, "batch_nodes": 1024}
    assert resolved(trees.NAME) == sizes
    # Memory, and the next length at which the model computes in another way, bound a pack; never below a batch.
    assert resolved(trees.NAME, memory_bytes=2 * GIB)["widest"] < 4096
    assert resolved(trees.NAME, memory_bytes=2**20)["widest"] == 1024
    assert resolved(trees.NAME, thresholds=(512, 8192, 16_384))["widest"] == 8192
    # A job that says how many nodes a pass may have is taken at its word.
    assert resolved(trees.NAME, 256) == {**sizes, "widest": 256, "batch_nodes": 256}


def test_dense_attention_has_its_cost():
    found = resolved(products.NAME)
    assert found["widest"] == 1024 and found["attention_cost"] == pytest.approx(2 / 3 / 576, rel=1e-3)
    on_cuda = resolved("sdpa", on_cpu=False)
    assert on_cuda["width"] == 512 and on_cuda["widest"] == 4096 and on_cuda["attention_cost"] > 0


@pytest.mark.parametrize(
    "asked, fitting, nodes", [("auto", 32_768, 32_768), ("auto", 8192, 8192), (1000, 32_768, 896), (7, 32_768, 128)]
)
def test_on_cuda_a_batch_is_one_row(asked, fitting, nodes):
    found = resolved(flex.NAME, asked, on_cpu=False, fitting_nodes=fitting)
    assert found == {"width": nodes, "widest": nodes, "attention_cost": 0.0, "batch_nodes": nodes}


@pytest.mark.parametrize(("attention", "on_cpu"), [(trees.NAME, True), (flex.NAME, False)])
@pytest.mark.parametrize("text", [400, 1000, 2000, 4000])
def test_questions_about_a_text_cost_little_more_than_both(attention, on_cpu, text, seed):
    """24 questions of 20 tokens on each of 8 texts, as a dataset and its branches lie in one block."""
    sizes = pack_numerics(attention, "auto", on_cpu=on_cpu, hidden_size=576, memory_bytes=2**35, fitting_nodes=2**15)
    draw = np.random.default_rng(seed)
    parents = [draw.integers(0, 50_000, text) for _ in range(8)]
    asked = [draw.integers(0, 50_000, 20) for _ in range(24)]
    sets = [Sequences.of(parents), *(Sequences.of([np.concatenate([p, q]) for p in parents]) for q in asked)]
    parts = pack_batches(Sequences.join(sets), {**sizes, "attention": attention})
    assert sum(batch.num_nodes for batch in parts) <= 1.15 * 8 * (text + 24 * 20)
