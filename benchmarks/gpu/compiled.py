"""A backend's decoder layers uncompiled or merged, and forward passes whose states stay on the device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from drillcore.backends.transformers.merged import NAME as MERGED


def is_compiled(backend: Any) -> bool:
    """Whether a prepared backend computes with compiled layers."""
    return "compile" in backend._numerics


@contextmanager
def uncompiled(backend: Any) -> Iterator[None]:
    """The layers as they are; compiled ones are put back at the end."""
    if backend._compile is not None:
        backend._compile.rest()
    try:
        yield
    finally:
        if backend._compile is not None:
            backend._compile.use()


@contextmanager
def merged(backend: Any) -> Iterator[None]:
    """Linear layers that share their input as one; apart again at the end."""
    numerics = backend._numerics
    backend._use({**numerics, "merged": MERGED})
    try:
        yield
    finally:
        backend._use(numerics)


def run_on_device(backend: Any, work: Any) -> None:
    """The passes of some work alone, nothing copied to the host: what the device could do."""
    with torch.inference_mode():
        for batch in work.parts:
            arguments = backend._feeder.feed(batch)
            backend._gatherer.begin(backend._feeder.to_device(batch.node_G), backend._loaded.dtype)
            backend._gatherer.finish(backend._loaded.decoder(use_cache=False, **arguments).last_hidden_state)
