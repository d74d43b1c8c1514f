"""Nearest sentences by plain numpy, for tests of what is stored and shown."""

from __future__ import annotations

from typing import Any

import numpy as np


def in_plain_numpy(states: np.ndarray, count: int) -> list[list[int]]:
    """The nearest sentences by all distances in float64; of equal ones the first by number; -1 where there is none."""
    wide = states.astype(np.float64)
    distances = np.sqrt(((wide[:, None] - wide[None]) ** 2).sum(axis=2))
    np.fill_diagonal(distances, np.inf)
    order = np.argsort(distances, axis=1, kind="stable")[:, : min(count, len(states) - 1)].tolist()
    return [row + [-1] * (count - len(row)) for row in order]


def assert_nearest(stored: Any, states: np.ndarray) -> None:
    """Stored neighbours of one layer are its nearest by float64 distances, up to rounding, and never the sentence.

    Of equal states they are the first by number, exactly.
    """
    stored, wide = np.asarray(stored), states.astype(np.float64)
    distances = np.sqrt(((wide[:, None] - wide[None]) ** 2).sum(axis=2))
    np.fill_diagonal(distances, np.inf)
    count = min(stored.shape[1], len(states) - 1)
    assert (stored[:, count:] == -1).all() and (stored[:, :count] >= 0).all()
    for own, row in enumerate(stored[:, :count].tolist()):
        assert own not in row and len(set(row)) == count, (own, row)
        wanted = np.sort(distances[own])[:count]
        np.testing.assert_allclose(distances[own][row], wanted, rtol=1e-5, atol=1e-5 * np.abs(wide).max())
        same = [int(i) for i in np.flatnonzero((states == states[own]).all(axis=1)) if i != own][:count]
        assert row[: len(same)] == same, own
