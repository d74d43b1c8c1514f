"""Linear CKA between layers, debiased: how alike two layers arrange the sentences.

Shape legend: L layers, S sampled sentences, H hidden size, R rows of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from drillcore.job.stages import Measure
from drillcore.neighbours import without_variance

# Sampled states of all layers together; fewer sentences are sampled where they would take more.
MEMORY_BYTES = 1_000_000_000
CHUNK_BYTES = 200_000_000
# Of products of float32 states that are scaled to a size near 1.
ROUNDING = 1e-5


def cka_rows(num_sentences: int, num_layers: int, hidden_size: int, settings: Measure) -> NDArray[np.int64]:
    """Rows [S] of the sentences that CKA compares, in order: drawn by the seed, at most `settings.sample`.

    >>> cka_rows(100, 30, 576, Measure(sample=20)).shape
    (20,)
    """
    most = max(20, MEMORY_BYTES // (4 * num_layers * hidden_size))
    size = min(num_sentences, settings.sample, most)
    drawn = np.random.default_rng([settings.seed, 1]).choice(num_sentences, size, replace=False)
    return np.sort(drawn).astype(np.int64)


def layer_cka(read: Callable[[int], NDArray[np.float32]], num_layers: int) -> NDArray[np.float32]:
    """Debiased linear CKA [L, L] (Kornblith and others, 2019, with the unbiased HSIC of Song and others, 2012).

    read: the sampled states [S, H] of the layer at a position. 1 where two layers agree up to turning and scaling,
    about 0 where they have nothing in common, a little below by chance; NaN for layers without variance, for fewer
    than 4 sentences, and where the estimate means nothing: of few sentences, most of them with one state, a layer's
    HSIC with itself is 0 but for rounding, or smaller than that with another layer.

    >>> states = np.float32(np.random.default_rng(0).normal(size=(50, 8)))
    >>> layers = [states, 3 * states[:, ::-1] + 1]  # mirrored, scaled and moved
    >>> layer_cka(layers.__getitem__, 2).round(3).tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    states = [_prepared(read(k)) for k in range(num_layers)]
    cka_LL = np.full((num_layers, num_layers), np.nan, np.float32)
    known = [k for k, s in enumerate(states) if s is not None]
    ready = [s for s in states if s is not None]
    if not ready or len(ready[0]) < 4:
        return cka_LL
    hsic_LL = _hsic(ready)
    size_L = np.sqrt(np.maximum(np.diag(hsic_LL), 0))
    size_LL = np.outer(size_L, size_L)
    cka = np.full_like(hsic_LL, np.nan)
    np.divide(hsic_LL, size_LL, out=cka, where=size_LL > ROUNDING)
    cka[np.abs(cka) > 1 + ROUNDING] = np.nan
    cka_LL[np.ix_(known, known)] = cka
    return cka_LL


def _prepared(states_SH: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """The states centred and scaled to a size near 1, which changes no CKA; None without variance."""
    if without_variance(states_SH):
        return None
    moved_SH = states_SH - states_SH.mean(axis=0, dtype=np.float64)
    return np.asarray(moved_SH / np.sqrt((moved_SH**2).sum(axis=1).mean()), np.float32)


def _hsic(states: list[NDArray[np.float32]]) -> NDArray[np.float64]:
    """Unbiased HSIC of every pair of layers [L, L], from chunks of rows of their Gram matrices."""
    num_layers, num_rows = len(states), len(states[0])
    chunk_rows = max(1, CHUNK_BYTES // (4 * num_layers * num_rows))
    products_LL, sums_LS = np.zeros((num_layers,) * 2), np.empty((num_layers, num_rows))
    for start in range(0, num_rows, chunk_rows):
        rows = slice(start, min(start + chunk_rows, num_rows))
        grams_LRS = np.stack([s[rows] @ s.T for s in states])
        own = np.arange(rows.stop - start)
        grams_LRS[:, own, start + own] = 0
        flat = grams_LRS.reshape(num_layers, -1)
        products_LL += flat @ flat.T
        sums_LS[:, rows] = grams_LRS.sum(axis=2, dtype=np.float64)
    totals_L = sums_LS.sum(axis=1)
    together = np.outer(totals_L, totals_L) / ((num_rows - 1) * (num_rows - 2))
    crossed = 2 / (num_rows - 2) * (sums_LS @ sums_LS.T)
    return np.asarray((products_LL + together - crossed) / (num_rows * (num_rows - 3)))
