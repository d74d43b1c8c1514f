"""The deepest MLP computes the gathered nodes only, and the states stay the same."""

from __future__ import annotations

import numpy as np
import pytest
from backend_contract import collect

from drillcore.backends.transformers.last_mlp import STEP
from drillcore.tokens.sequences import Sequences
from support.backends import open_transformers
from support.plain import random_sentences

# Falcon's and GPT-NeoX's run beside the attention; Mixtral's is a router with its experts.
WITH_MLP = ["llama", "gpt2", "gpt_neox", "falcon", "mixtral", "gemma2"]


@pytest.mark.parametrize("wanted", ["all", (0, 2)])
@pytest.mark.parametrize("architecture", WITH_MLP)
def test_the_deepest_mlp_gets_the_gathered_nodes_only(architecture, wanted, models, seed):
    backend, _ = open_transformers(models(architecture), wanted)
    block = Sequences.of(random_sentences(seed, backend.facts.vocab_size, count=20))
    before = collect(backend, block)
    seen: dict[int, int] = {}
    deepest = len(backend._loaded.decoder_layers) - 1
    for k, layer in enumerate(backend._loaded.decoder_layers):
        # Registered after the backend's own hooks: it sees the arguments that the module gets.
        layer.mlp.register_forward_hook(
            lambda m, args, out, k=k: seen.update({k: seen.get(k, 0) + args[0][..., 0].numel()})
        )
    np.testing.assert_array_equal(collect(backend, block), before)
    gathered = [len(batch.node_G) for batch in backend.lay_out(block).parts]
    assert sum(gathered) == len({s.tobytes() for s in block})
    assert seen[deepest] == sum(-(-count // STEP) * STEP for count in gathered)
    if deepest:
        assert seen[0] >= backend.lay_out(block).num_nodes > seen[deepest]
