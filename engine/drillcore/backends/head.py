"""A model's final norm and unembedding without its blocks, for states that are in the store already."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drillcore.backends.source import locate
from drillcore.backends.transformers.loading import load, unembed
from drillcore.job.fields import Extract, Model


class Head:
    """The end of one model, in the dtype and on the device of its extraction."""

    def __init__(self, model: Model, base: str, extract: Extract) -> None:
        """Read the model; raises ModelError."""
        source = locate(model, Path(base))
        # Only block 1 is kept on the way: what follows the deepest layer goes before it is moved to the device.
        self._loaded = load(source, extract, 1)
        del self._loaded.blocks[:]

    def logits(self, states_GH: NDArray[np.floating[Any]], *, normed: bool = False) -> NDArray[np.float32]:
        """Logits [G, V] of states [G, H] of any block; `normed` for those after the final norm."""
        return unembed(self._loaded, states_GH, normed=normed)


@lru_cache(maxsize=1)
def open_head(model: Model, base: str, extract: Extract) -> Head:
    """The head of a model, kept until another is asked for; raises ModelError."""
    return Head(model, base, extract)
