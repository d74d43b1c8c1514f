"""States leave the device as they are, or rounded as NumPy rounds; magnitudes are taken before."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch

from drillcore.backends.transformers.host import BatchCopy, largest_magnitudes
from drillcore.tokens.batches import Batch
from drillcore.tokens.places import gathering

DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}


def batch_of(count):
    grid, nodes = np.zeros((1, count), np.int64), np.arange(count)
    return Batch(grid, grid, grid, nodes, nodes, nodes, np.array([count]))


@pytest.mark.parametrize("store_dtype", ["", "float32", "float16"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(1, 1, 1), (70, 5, 300), (3, 2, 200_000)])
def test_states_leave_as_numpy_would_cast_them(dtype, store_dtype, size, seed):
    draw = np.random.default_rng(seed)
    # All magnitudes, values beyond float16 and below its normal numbers among them.
    drawn = (draw.normal(size=size) * np.exp2(draw.integers(-30, 20, size))).astype(np.float32)
    with np.errstate(over="ignore"):
        values = drawn.astype(DTYPES[dtype])
    batch = batch_of(size[0])
    states = torch.tensor(values.astype(np.float32)).to(getattr(torch, dtype))
    (part,) = BatchCopy(batch, gathering(batch, ()), [states], "", None, store_dtype).take()
    with np.errstate(over="ignore"):
        wanted = values.astype(np.float16) if store_dtype == "float16" else values
    assert part.values_GKH.dtype == wanted.dtype
    np.testing.assert_array_equal(part.values_GKH.astype(np.float32), wanted.astype(np.float32))
    np.testing.assert_array_equal(part.absmax_GK, np.abs(values.astype(np.float32)).max(-1))


@pytest.mark.parametrize("dtype", [*DTYPES, "float64"])
def test_magnitudes_of_what_is_no_number(dtype, seed):
    values = torch.randn(40, 7, generator=torch.Generator().manual_seed(seed)).to(getattr(torch, dtype))
    values[3, 2], values[4, 1], values[5, 6], values[6] = float("nan"), float("inf"), -float("inf"), -0.0
    found = largest_magnitudes(values)
    assert torch.isnan(found[3]) and found[4] == found[5] == float("inf") and found[6] == 0
    others = [k for k in range(40) if k not in (3, 4, 5)]
    assert torch.equal(found[others], values[others].abs().amax(-1).float())
