"""Attention over narrow packs on a CPU is that of SDPA, and refuses what SDPA refuses."""

from __future__ import annotations

import pytest
import torch

from drillcore.backends.transformers import cpu_attention as products


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


def test_arguments_that_sdpa_refuses_are_refused():
    states = torch.randn(1, 2, 4, 8)
    with pytest.raises(ValueError, match="softcap"):
        products.products_attention(torch.nn.Module(), states, states, states, torch.zeros(1, 1, 4, 4), softcap=30.0)
