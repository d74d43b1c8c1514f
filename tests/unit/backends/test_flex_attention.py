"""FlexAttention over packs: masks from intervals are the dense ones, and the states are the plain ones."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from backend_contract import collect

from conftest import require
from drillcore.backends.transformers.flex_attention import TILE, PackMask, interval_tiles
from drillcore.backends.transformers.masks import ancestors
from drillcore.tokens.batches import batches
from drillcore.tokens.packs import build_packs
from drillcore.tokens.sequences import Sequences
from support.backends import open_transformers
from support.plain import plain_states, random_sentences, relative_error


def packed_batch(seed):
    sentences = Sequences.of(random_sentences(seed, 384, longest=200, count=60))
    return next(batches(build_packs(sentences, 512), 2048))


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
    packs = build_packs(Sequences.of([np.arange(300)]), 512)
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
