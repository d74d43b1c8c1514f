"""Label permutations in chunks that fit in memory, as one column a permutation and label.

Shape legend: U sentences, B permutations of a chunk, C labels.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from drillcore.measures.draws import Shared

# Values of the largest array of a chunk: 40 MB of float32.
CHUNK_VALUES = 10_000_000


def one_hot(codes_BU: NDArray[np.integer], num_labels: int) -> NDArray[np.float32]:
    """1 where a sentence has a label under a permutation, [U, B, C]."""
    found_UBC = np.zeros((codes_BU.shape[1], codes_BU.shape[0], num_labels), np.float32)
    codes_K = codes_BU.T.ravel().astype(np.int64)
    found_UBC.reshape(-1)[np.arange(len(codes_K)) * num_labels + codes_K] = 1
    return found_UBC


def permutations(shared: Shared, num_rows: int) -> Iterator[NDArray[np.int16]]:
    """All permutations [B, U] in chunks for work that holds `num_rows` x B x C values."""
    size = max(1, CHUNK_VALUES // max(1, num_rows * shared.num_labels))
    for start in range(0, shared.num_permutations, size):
        yield shared.permuted(start, min(start + size, shared.num_permutations))
