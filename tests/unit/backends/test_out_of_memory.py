"""Out of memory halves a batch and goes on with the same states; one row that cannot fit is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from backend_contract import collect

from drillcore.backends.source import locate
from drillcore.backends.transformers.backend import TransformersBackend
from drillcore.errors import RunError
from drillcore.job.extract import Extract
from drillcore.job.model import Model
from drillcore.tokens.sequences import Sequences
from support.plain import random_sentences, relative_error


def backend_with_room_for(rows: int, folder: Path, layout: str) -> TransformersBackend:
    """A backend whose device has memory for so many rows at once: real passes, a small device."""
    source = locate(Model(id=str(folder)), Path("/"))
    backend = TransformersBackend(source, Extract(layout=layout), tuple(range(5)))
    backend.prepare(Sequences.of([]), None)
    forward = backend._loaded.decoder.forward

    def small(**arguments):
        if len(arguments["input_ids"]) > rows:
            raise torch.OutOfMemoryError("no memory left")
        return forward(**arguments)

    backend._loaded.decoder.forward = small
    return backend


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_halving_gives_the_same_states_and_says_so(layout, models, seed):
    folder = models("llama")
    block = Sequences.of(random_sentences(seed, 384, count=120))
    small, large = (backend_with_room_for(n, folder, layout) for n in (2, 10_000))
    assert relative_error(collect(small, block), collect(large, block)).max() <= 1e-5
    work = small.lay_out(block)
    parts = list(small.run(work))
    assert any("halved" in p.note for p in parts)
    assert sum(p.num_nodes for p in parts) == work.num_nodes
    assert sum(p.num_padding for p in parts) == work.num_padding
    assert np.isfinite(collect(small, block)).all()


def test_a_row_that_cannot_fit_is_named(models, seed):
    backend = backend_with_room_for(0, models("llama"), "packed")
    with pytest.raises(RunError, match=r"no memory for one row of \d+ tokens, which holds sentence"):
        collect(backend, Sequences.of(random_sentences(seed, 384, count=5)))
