"""Tiles of queries against their ancestors give what a dense mask gives, in attention and in whole models."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from backend_contract import collect

from drillcore.backends.transformers import cpu_attention as products
from drillcore.backends.transformers import cpu_trees as trees
from drillcore.backends.transformers.masks import additive, ancestors
from drillcore.tokens.batches import batches
from drillcore.tokens.former_packs import build_former_packs
from drillcore.tokens.packs import build_packs
from drillcore.tokens.sequences import Sequences
from drillcore.tokens.widths import PackRule
from support.backends import open_transformers
from support.plain import plain_states, random_sentences, relative_error


def family(draw, trunk, leaves, length, vocab=384):
    """Sentences that share a trunk, and some that share part of it."""
    stem = draw.integers(3, vocab, trunk)
    made = [np.concatenate([stem, draw.integers(3, vocab, draw.integers(1, length + 1))]) for _ in range(leaves)]
    made += [np.concatenate([stem[: draw.integers(1, trunk)], draw.integers(3, vocab, 5)]) for _ in range(leaves // 3)]
    return [m.astype(np.int32) for m in made]


def wide_batch(draw, trunk, leaves, length):
    """One pack of all sentences, with padding at its end."""
    sentences = Sequences.of([*family(draw, trunk, leaves, length), *random_sentences(int(draw.integers(99)), 384)])
    width = -(-int(sentences.lengths_N.sum()) // 8) * 8
    return next(batches(build_packs(sentences, PackRule(width)), width))


@pytest.mark.parametrize("dtype, bound", [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("window", [None, 3, 40])
@pytest.mark.parametrize("trunk, leaves, length", [(150, 9, 20), (3, 60, 9), (400, 2, 1)])
def test_tiles_equal_a_dense_mask(seed, trunk, leaves, length, window, dtype, bound):
    batch = wide_batch(np.random.default_rng(seed), trunk, leaves, length)
    torch.manual_seed(seed)
    width = batch.token_ids_RW.shape[1]
    query = torch.randn(1, 6, width, 16, dtype=dtype)
    key, value = (torch.randn(1, 2, width, size, dtype=dtype) for size in (16, 24))
    mask = trees.TreeMask.of(batch.subtree_end_RW, batch.position_ids_RW, window, dtype)
    assert mask.shape == (1, 1, width, width) and mask.untyped_storage().nbytes() < 16
    got, _ = trees.trees_attention(torch.nn.Module(), query, key, value, mask, scaling=0.3)
    dense = additive(
        ancestors(torch.tensor(batch.subtree_end_RW), torch.tensor(batch.position_ids_RW), window), torch.float32
    )
    scores = 0.3 * query.float() @ key.float().repeat_interleave(3, 1).transpose(-1, -2) + dense
    wanted = (scores.softmax(-1) @ value.float().repeat_interleave(3, 1)).transpose(1, 2)
    assert got.shape == wanted.shape
    assert relative_error(got.float().numpy(), wanted.numpy()).max() <= bound


def test_a_tile_holds_ancestors_only():
    """The cost of a query is its own sentence, not its pack."""
    sentences = Sequences.of([[*range(100), 200 + i, *range(19)] for i in range(100)])
    packs = build_packs(sentences, PackRule(64, 32_768))
    # As wide as the trunk makes it worth: at least 24 trunks.
    (batch, *_) = batches(packs, 1, trim=True)
    mask = trees.TreeMask.of(batch.subtree_end_RW, batch.position_ids_RW, None, torch.float32)
    keys = [t.high if t.keys_K is None else len(t.keys_K) for t in mask.tiles]
    assert len(keys) > 24 and max(keys) <= 100 + 20 + trees.TILE
    assert sum(t.mask.numel() for t in mask.tiles) < 0.1 * batch.token_ids_RW.size**2


def test_a_mask_that_was_changed_is_refused():
    ends, depth = np.full((1, 300), 300), np.arange(300)[None]
    mask = trees.TreeMask.of(ends, depth, None, torch.float32)
    states = torch.randn(1, 2, 300, 8)
    for changed in (mask[:, :, :200], mask + 1, mask.clone(), mask.to(torch.float64)):
        with pytest.raises(ValueError, match="tiles cannot attend here"):
            trees.trees_attention(torch.nn.Module(), states, states, states, changed)
    with pytest.raises(ValueError, match="softcap"):
        trees.trees_attention(torch.nn.Module(), states, states, states, mask, softcap=30.0)
    with pytest.raises(ValueError, match="the keys"):
        trees.trees_attention(torch.nn.Module(), states, states[:, :, :20], states[:, :, :20], mask)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3_text", "mistral", "gpt_neox", "mixtral", "cohere"])
def test_wide_packs_equal_the_plain_way(architecture, models, seed):
    from transformers import AutoModelForCausalLM

    folder = models(architecture)
    backend, prepared = open_transformers(folder)
    assert prepared.numerics["attention"] == trees.NAME and prepared.check.passed and not prepared.check.notes
    draw = np.random.default_rng(seed)
    sentences = [*family(draw, 60, 90, 6), *random_sentences(seed, 384, longest=100), *family(draw, 150, 9, 9)]
    block = Sequences.of([sentences[i] for i in draw.permutation(len(sentences))])
    widths = [b.token_ids_RW.shape[1] for b in backend.lay_out(block).parts]
    assert max(widths) > 2 * products.WIDEST and min(widths) <= products.WIDEST
    states = collect(backend, block)
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    want = np.stack([plain_states(plain, s, states.shape[1] - 2) for s in block])
    assert relative_error(states, want).max() <= 1e-5


def test_bfloat16_keeps_to_its_own_noise(models, seed):
    backend, prepared = open_transformers(models("llama"), dtype="bfloat16")
    assert prepared.numerics["attention"] == trees.NAME and prepared.check.passed
    sentences = Sequences.of(family(np.random.default_rng(seed), 150, 30, 9))
    alone = backend.alone(sentences)
    ours = relative_error(collect(backend, sentences), alone.states_CKH)
    rms = np.sqrt([np.mean(np.square(errors), axis=0) for errors in (ours, alone.noise_CK)])
    assert (rms[0] <= 1.5 * rms[1] + 1e-6).all()


def test_a_store_written_before_keeps_its_packs_and_attention(models, seed):
    former = {"width": 64, "attention_cost": 0.02, "batch_nodes": 1024, "attention": products.NAME, "layout": "packed"}
    backend, prepared = open_transformers(models("llama"))
    numerics = {k: v for k, v in prepared.numerics.items() if k not in ("packs", "widest")} | former
    assert backend.prepare(Sequences.of([]), numerics).numerics == numerics
    block = Sequences.of(family(np.random.default_rng(seed), 150, 60, 9))
    former = batches(build_former_packs(block, PackRule(64, 1024, 0.02)), 1024, trim=True)
    now = prepared.numerics
    for got, wanted in zip(backend.lay_out(block).parts, former, strict=True):
        np.testing.assert_array_equal(got.token_ids_RW, wanted.token_ids_RW)
    backend.prepare(Sequences.of([]), now)
    assert len(backend.lay_out(block).parts) == 2


def test_a_model_whose_attention_cannot_be_replaced_gets_dense_masks(models):
    _, prepared = open_transformers(models("falcon"))
    assert prepared.numerics["layout"] == "packed" and prepared.numerics["attention"] == products.NAME
    assert prepared.check.passed and "its attention cannot be replaced" in prepared.check.notes[0]


def test_a_model_that_changes_its_mask_gets_dense_ones(models, monkeypatch):
    """Here every layer slices it, as some models of the hub do."""
    real = trees.trees_attention
    monkeypatch.setattr(trees, "trees_attention", lambda m, q, k, v, mask, **rest: real(m, q, k, v, mask[:], **rest))
    _, prepared = open_transformers(models("llama"))
    assert prepared.numerics["attention"] == products.NAME and prepared.numerics["attention_cost"] > 0
    assert prepared.check.passed and "drillcore_trees" in prepared.check.notes[0]
