"""Linear layers and gated MLPs through oneDNN are as exact as PyTorch's own."""

from __future__ import annotations

import copy

import pytest
import torch

from drillcore.backends.transformers import cpu_linears as linears


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("inputs", [0, 7, linears.LONG - 1, linears.LONG, linears.LONG + 6])
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
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
@pytest.mark.parametrize("inner", [0, 7, linears.LONG - 1, linears.LONG, linears.LONG + 6])
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_gated_mlps_equal_exact_ones(inputs, inner, bias, seed):
    torch.manual_seed(seed % 2**31)
    model = torch.nn.Sequential(Gated(inputs, inner, bias))
    prepared, states = linears.PreparedLinears(model, 12), torch.randn(3, 4, inputs)
    exact = copy.deepcopy(model).double()
    before = states.clone()
    with torch.inference_mode():
        prepared.use()
        assert "forward" in vars(model[0]) and "forward" not in vars(model[0].gate_proj)
        got = model(states)
        prepared.rest()
        plain, want = model(states), exact(states.double())
    assert not any("forward" in vars(module) for module in model.modules())
    bound = 1e-5 * want.abs().max()
    assert got.shape == plain.shape and torch.equal(states, before)
    assert (got - want).abs().max() <= bound and (plain - want).abs().max() <= bound


def test_modules_that_only_resemble_a_gated_mlp_are_left_alone(seed):
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
