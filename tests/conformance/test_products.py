"""What is computed in another way than transformers does on a CPU: narrow attention, and the deepest MLP."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from backend_contract import collect
from test_backends import open_transformers

from drillcore.backends.transformers import cpu_attention as products
from drillcore.backends.transformers import cpu_linears as linears
from drillcore.backends.transformers.last_mlp import STEP
from drillcore.tokens.sequences import Sequences
from support.plain import random_sentences

# Falcon's and GPT-NeoX's run beside the attention; Mixtral's is a router with its experts.
WITH_MLP = ["llama", "gpt2", "gpt_neox", "falcon", "mixtral", "gemma2"]


@pytest.mark.parametrize("width", [1, 5, 64, products.WIDEST, products.WIDEST + 1])
@pytest.mark.parametrize("key_heads", [1, 2, 6])
@pytest.mark.parametrize("scaling", [None, 0.3])
def test_products_equal_sdpa(width, key_heads, scaling, seed):
    torch.manual_seed(seed % 2**31)
    query, (key, value) = torch.randn(3, 6, width, 8), torch.randn(2, 3, key_heads, width, 8)
    mask = torch.zeros(3, 1, width, width).masked_fill(torch.rand(3, 1, width, width) < 0.5, torch.finfo().min)
    mask.diagonal(dim1=-2, dim2=-1).zero_()
    module = torch.nn.Module()
    module.num_key_value_groups = 6 // key_heads
    before = query.clone(), key.clone(), value.clone(), mask.clone()
    got, _ = products.products_attention(module, query, key, value, mask, scaling=scaling, sliding_window=4)
    want = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=scaling, enable_gqa=True
    )
    assert torch.allclose(got, want.transpose(1, 2), rtol=1e-4, atol=1e-5) and got.is_contiguous()
    assert all(torch.equal(a, b) for a, b in zip(before, (query, key, value, mask), strict=True))


def test_what_sdpa_refuses_is_refused():
    states = torch.randn(1, 2, 4, 8)
    with pytest.raises(ValueError, match="softcap"):
        products.products_attention(torch.nn.Module(), states, states, states, torch.zeros(1, 1, 4, 4), softcap=30.0)


@pytest.mark.parametrize("wanted", ["all", (0, 2)])
@pytest.mark.parametrize("architecture", WITH_MLP)
def test_the_deepest_mlp_sees_only_what_is_gathered(architecture, wanted, models, seed):
    backend, _ = open_transformers(models(architecture), wanted)
    block = Sequences.of(random_sentences(seed, backend.facts.vocab_size, count=20))
    before = collect(backend, block)
    seen: dict[int, int] = {}
    deepest = len(backend._loaded.decoder_layers) - 1
    for k, layer in enumerate(backend._loaded.decoder_layers):
        # Behind the engine's own hooks: this one sees what the module is called with.
        layer.mlp.register_forward_hook(
            lambda m, args, out, k=k: seen.update({k: seen.get(k, 0) + args[0][..., 0].numel()})
        )
    np.testing.assert_array_equal(collect(backend, block), before)
    distinct = len({s.tobytes() for s in block})
    assert seen[deepest] == -(-distinct // STEP) * STEP
    if deepest:
        assert seen[0] >= backend.plan(block).num_nodes > seen[deepest]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("inputs", [7, linears.LONG - 1, linears.LONG, linears.LONG + 6])
def test_linear_layers_equal_exact_ones(inputs, bias, seed):
    torch.manual_seed(seed % 2**31)
    model = torch.nn.Sequential(torch.nn.Linear(inputs, 9, bias=bias))
    prepared = linears.PreparedLinears(model, 12)
    states = torch.randn(3, 4, inputs)
    with torch.inference_mode():
        prepared.use()
        got = model(states)
        prepared.rest()
        plain = model(states)
    weight, exact = model[0].weight.detach().double(), states.double()
    want = exact @ weight.T + (model[0].bias.detach().double() if bias else 0.0)
    scale = (exact.abs() @ weight.abs().T).max()
    assert got.shape == (3, 4, 9) and (got - want).abs().max() <= 1e-6 * scale
    assert (plain - want).abs().max() <= 1e-6 * scale


class Gated(torch.nn.Module):
    """A gated MLP as transformers' models have it; `extra` is what it adds to its result."""

    def __init__(self, inputs: int, inner: int, bias: bool, extra: float = 0.0) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = (torch.nn.Linear(inputs, inner, bias=bias) for _ in range(2))
        self.down_proj, self.act_fn = torch.nn.Linear(inner, inputs, bias=bias), torch.nn.SiLU()
        self.extra = extra

    def forward(self, states):
        return self.down_proj(self.act_fn(self.gate_proj(states)) * self.up_proj(states)) + self.extra


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("inputs", [9, linears.LONG + 6])
@pytest.mark.parametrize("inner", [7, linears.LONG - 1, linears.LONG, linears.LONG + 6])
def test_gated_mlps_equal_exact_ones(inputs, inner, bias, seed):
    torch.manual_seed(seed % 2**31)
    model = torch.nn.Sequential(Gated(inputs, inner, bias))
    prepared, states = linears.PreparedLinears(model, 12), torch.randn(3, 4, inputs)
    exact = copy.deepcopy(model).double()
    kept = states.clone()
    with torch.inference_mode():
        prepared.use()
        assert "forward" in vars(model[0]) and "forward" not in vars(model[0].gate_proj)
        got = model(states)
        prepared.rest()
        plain, want = model(states), exact(states.double())
    assert not any("forward" in vars(module) for module in model.modules())
    bound = 1e-5 * want.abs().max()
    assert got.shape == plain.shape and torch.equal(states, kept)
    assert (got - want).abs().max() <= bound and (plain - want).abs().max() <= bound


def test_what_only_looks_like_a_gated_mlp_keeps_its_own_way(seed):
    torch.manual_seed(seed % 2**31)
    adapted, two_inputs = Gated(9, 7, True), Gated(9, 7, True)
    adapted.down_proj = torch.nn.modules.linear.NonDynamicallyQuantizableLinear(7, 9)
    two_inputs.forward = lambda states, residual: states + residual
    assert linears.is_gated_mlp(Gated(9, 7, True))
    for other in (Gated(9, 7, True, extra=0.01), adapted, two_inputs, torch.nn.Linear(9, 7)):
        assert not linears.is_gated_mlp(other)
    model = torch.nn.Sequential(Gated(9, 7, True, extra=0.01))
    prepared, states = linears.PreparedLinears(model, 4), torch.randn(4, 9)
    with torch.inference_mode():
        plain = model(states)
        prepared.use()
        assert torch.allclose(model(states), plain, atol=1e-5)
