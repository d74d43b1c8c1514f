"""FlexAttention over packs: masks from intervals are the dense ones, and the states are the plain ones."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from backend_contract import collect

from conftest import require
from drillcore.backends.transformers import flex_attention as flex
from drillcore.backends.transformers.flex_attention import TILE, PackMask, interval_tiles
from drillcore.backends.transformers.masks import ancestors
from drillcore.tokens.batches import batches
from drillcore.tokens.packs import build_packs
from drillcore.tokens.sequences import Sequences
from drillcore.tokens.widths import PackRule
from support.backends import open_transformers
from support.plain import plain_states, random_sentences, relative_error


def packed_batch(seed):
    sentences = Sequences.of(random_sentences(seed, 384, longest=200, count=60))
    return next(batches(build_packs(sentences, PackRule(512)), 2048))


@pytest.mark.parametrize("window", [None, 7])
def test_the_sparse_mask_equals_the_dense_mask(seed, window):
    batch = packed_batch(seed)
    ends, depth = torch.tensor(batch.subtree_end_RW), torch.tensor(batch.position_ids_RW)
    dense = ancestors(ends, depth, window)
    num_rows, width = ends.shape
    mask = PackMask(num_rows, width, window, torch.device("cpu")).fill(ends, depth)
    tiles = dense.view(num_rows, width // TILE, TILE, width // TILE, TILE).permute(0, 1, 3, 2, 4)
    listed = torch.zeros(tiles.shape[:3], dtype=torch.bool)
    for counts, indices, whole in (
        (mask.kv_num_blocks, mask.kv_indices, False),
        (mask.full_kv_num_blocks, mask.full_kv_indices, True),
    ):
        for r, i in np.ndindex(num_rows, width // TILE):
            for j in indices[r, 0, i, : counts[r, 0, i]].tolist():
                listed[r, i, j] = True
                assert not whole or tiles[r, i, j].all()
    assert not (tiles.flatten(3).any(-1) & ~listed).any()
    node = torch.arange(width)
    r, q, k = torch.arange(num_rows)[:, None, None], node[None, :, None], node[None, None, :]
    assert torch.equal(mask.mask_mod(r, None, q, k), dense)


def test_intervals_find_whole_tiles():
    # One sentence of 300 nodes: the tiles before the diagonal hold only ancestors.
    packs = build_packs(Sequences.of([np.arange(300)]), PackRule(512))
    some, every = interval_tiles(torch.tensor(next(batches(packs, 512)).subtree_end_RW))
    assert every[0, 1, 0] and not every[0, 2, 1] and some[0, 2].tolist() == [True, True, True, False]


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gemma3_text"])
def test_flex_equals_the_plain_way(architecture, models, seed):
    if shutil.which("g++") is None:
        require("compiler", "FlexAttention on a CPU is compiled with g++")
    from transformers import AutoModelForCausalLM

    folder = models(architecture, head_dim=16)
    backend, prepared = open_transformers(folder, attention="flex", layout="packed", batch_tokens=512)
    assert prepared.numerics["attention"] == "drillcore_packs" and prepared.check.passed
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    sentences = random_sentences(seed, 384, longest=100)
    states = collect(backend, Sequences.of(sentences))
    want = np.stack([plain_states(plain, s, 3) for s in sentences])
    assert relative_error(states, want).max() <= 1e-5


@pytest.fixture
def traced(monkeypatch):
    """FlexAttention traced and checked for its shapes as ever, but run without a compiler."""
    flex.set_up()
    monkeypatch.setattr(flex, "_compiled", torch.compile(flex.flex_attention, dynamic=False, backend="eager"))
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def shapes_at_most(count, monkeypatch):
    """A context in which PyTorch compiles for so many shapes."""
    monkeypatch.setattr(flex, "SHAPES", count)
    monkeypatch.setattr(flex, "ALL_SHAPES", count)
    return torch._dynamo.config.patch(recompile_limit=count, accumulated_recompile_limit=count)


def open_flex(folder, **extract):
    return open_transformers(folder, attention="flex", layout="auto", batch_tokens=1024, **extract)


def test_any_number_of_models_may_follow_each_other(traced, models, monkeypatch, seed):
    # So many shapes as one model needs: widths of 128 to 1,024 nodes.
    block = Sequences.of(random_sentences(seed, 384, longest=40))
    with shapes_at_most(4, monkeypatch):
        for heads in (1, 2, 4):
            backend, prepared = open_flex(models("llama", head_dim=8 * heads))
            assert prepared.numerics["attention"] == flex.NAME and prepared.check.passed
            collect(backend, block)
            backend.close()


def test_a_model_past_the_limit_of_shapes_takes_padded_batches(traced, models, monkeypatch):
    with shapes_at_most(1, monkeypatch):
        _, prepared = open_flex(models("gemma3_text", head_dim=16))
    assert prepared.numerics["layout"] == "padded" and prepared.check.passed
    assert "FailOnRecompileLimitHit" in prepared.check.notes[0]


@pytest.mark.parametrize("former", [False, True])
@pytest.mark.parametrize("room", [1100, 700, 300])
def test_out_of_memory_feeds_less_until_it_fits(traced, models, seed, room, former):
    """The device has memory for so many nodes: shapes are fixed, and smaller for what is left."""
    backend, prepared = open_flex(models("llama", head_dim=16))
    if former:
        before = {"width": 512, "batch_nodes": 1024, "attention_cost": 0.0}
        kept = {k: v for k, v in prepared.numerics.items() if k not in ("packs", "widest")}
        backend.prepare(Sequences.of([]), kept | before)
    block = Sequences.of(random_sentences(seed, 384, longest=120, count=60))
    work, wanted = backend.lay_out(block), collect(backend, block)
    fed: list[int] = []
    forward = backend._loaded.decoder.forward

    def small(**arguments):
        nodes = arguments["input_ids"].numel()
        if nodes > room:
            raise torch.OutOfMemoryError("no memory left")
        fed.append(nodes)
        return forward(**arguments)

    backend._loaded.decoder.forward = small
    assert relative_error(collect(backend, block), wanted).max() <= 1e-5
    assert max(fed) <= room
    parts = list(backend.run(work))
    assert any("halved" in part.note for part in parts) == (room < max(b.token_ids_RW.size for b in work.parts))


def test_padding_of_fixed_shapes_is_counted(traced, models, seed):
    backend, prepared = open_flex(models("llama", head_dim=16))
    block = Sequences.of(random_sentences(seed, 384, longest=60, count=33))
    for former in (False, True):
        if former:
            kept = {k: v for k, v in prepared.numerics.items() if k not in ("packs", "widest")}
            backend.prepare(Sequences.of([]), kept | {"width": 128, "batch_nodes": 1024})
        fed: list[int] = []
        forward = backend._loaded.decoder.forward
        backend._loaded.decoder.forward = lambda fed=fed, forward=forward, **a: (
            fed.append(a["input_ids"].numel()) or forward(**a)
        )
        work = backend.lay_out(block)
        parts = list(backend.run(work))
        backend._loaded.decoder.forward = forward
        assert work.num_nodes + work.num_padding == sum(fed) == sum(p.num_nodes + p.num_padding for p in parts)


def test_a_batch_is_one_row_and_its_last_one_narrower(traced, models, seed):
    backend, prepared = open_flex(models("llama", head_dim=16))
    assert prepared.numerics["width"] == prepared.numerics["widest"] == prepared.numerics["batch_nodes"] == 1024
    draw = np.random.default_rng(seed)
    block = Sequences.of([draw.integers(3, 384, 23).astype(np.int32) for _ in range(100)])
    shapes = [b.token_ids_RW.shape for b in backend.lay_out(block).parts]
    # 44 sentences a row, and twelve in the last.
    assert shapes == [(1, 1024), (1, 1024), (1, 384)]
