"""Keeps what the surrounding program set in PyTorch out of our forward passes, and puts it back afterwards.

Autocast, low matmul precision, deterministic algorithms, a default dtype or device change states without a word: both
sides of the self-check alike, so that it could not see them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

# Where products of float32 may be computed with fewer bits.
_ONEDNN: Any = torch.backends.mkldnn
PRODUCTS = (torch.backends.cuda.matmul, _ONEDNN.matmul, _ONEDNN.conv)
EXACT = ("none", "ieee")


@contextmanager
def pinned() -> Iterator[None]:
    """PyTorch as a fresh process has it: float32 by default, on the CPU, no autocast, whole products.

    >>> torch.set_float32_matmul_precision("medium")
    >>> with pinned():
    ...     torch.get_float32_matmul_precision()
    'highest'
    >>> torch.get_float32_matmul_precision()
    'medium'
    >>> torch.set_float32_matmul_precision("highest")
    """
    with ExitStack() as stack:
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if torch.get_default_dtype() != torch.float32:
            stack.callback(torch.set_default_dtype, torch.get_default_dtype())
            torch.set_default_dtype(torch.float32)
        if torch.are_deterministic_algorithms_enabled():
            warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
            stack.callback(torch.use_deterministic_algorithms, True, warn_only=warn_only)
            torch.use_deterministic_algorithms(False)
        _exact_products(stack)
        yield


def _exact_products(stack: ExitStack) -> None:
    named = _precision()
    found = [_of(place) for place in PRODUCTS]
    if named == "highest" and all(value in EXACT for value in found):
        return
    # Undone in the opposite order: the general name first, since it sets the others.
    for place, value in zip(PRODUCTS, found, strict=True):
        stack.callback(setattr, place, "fp32_precision", value)
    if named is not None:
        stack.callback(torch.set_float32_matmul_precision, named)
    torch.set_float32_matmul_precision("highest")
    for place in PRODUCTS:
        place.fp32_precision = "ieee"


def _of(place: Any) -> str:
    return str(place.fp32_precision)


def _precision() -> str | None:
    """The general name of the precision; None where the program set the parts of it apart."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return None
