"""Token prediction through each layer: what the model's own final norm and unembedding make of a state.

The logit lens (nostalgebraist, 2020). In early layers it is uncalibrated: a token may be present in a form that the
unembedding does not read. Shape legend: N sentences, R rows of a chunk, H hidden size, V tokens, Q quantities.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drillcore.measures.intervals import plain_interval, share_interval

# Coordinate `quantity` of the array `next_token`.
QUANTITIES = ("logprob", "rank", "margin")
CHUNK_ROWS = 128


@dataclass(frozen=True)
class TokenSummary:
    """One layer over all sentences that name a token, each figure as (value, low, high) with a 95 % interval.

    logprob: mean natural logarithm of the probability. top1: share of the sentences whose expected token is the
    likeliest. median_rank: 1 is best. num_sentences: sentences that name a token.
    """

    logprob: tuple[float, float, float]
    top1: tuple[float, float, float]
    median_rank: float
    num_sentences: int


def next_token(
    states_NH: NDArray[np.float32],
    expected_N: NDArray[np.integer[Any]],
    unembed: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    chunk_rows: int = CHUNK_ROWS,
) -> NDArray[np.float32]:
    """Log-probability, rank and margin of the expected next token [N, Q]; NaN where `expected_N` is negative.

    unembed: logits [R, V] of states [R, H]. rank: 1 plus the tokens with a larger logit. margin: its logit less the
    largest of the others.

    >>> weights_HV = np.float32([[2, 0, 0], [0, 3, 1]])
    >>> values_NQ = next_token(np.eye(2, dtype=np.float32), np.array([0, 2]), lambda states_RH: states_RH @ weights_HV)
    >>> values_NQ.astype(float).round(2).tolist()
    [[-0.24, 1.0, 2.0], [-2.17, 2.0, -2.0]]
    """
    values_NQ = np.full((len(states_NH), len(QUANTITIES)), np.nan, np.float32)
    rows_N = np.flatnonzero(np.asarray(expected_N) >= 0)
    for start in range(0, len(rows_N), chunk_rows):
        rows_R = rows_N[start : start + chunk_rows]
        logits_RV = np.array(unembed(states_NH[rows_R]), np.float64)
        values_NQ[rows_R] = _quantities(logits_RV, np.asarray(expected_N)[rows_R])
    return values_NQ


def _quantities(logits_RV: NDArray[np.float64], expected_R: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    own_R = np.take_along_axis(logits_RV, expected_R[:, None].astype(np.int64), axis=1)[:, 0]
    largest_R = logits_RV.max(axis=1)
    total_R = np.log(np.exp(logits_RV - largest_R[:, None]).sum(axis=1)) + largest_R
    rank_R = 1 + (logits_RV > own_R[:, None]).sum(axis=1)
    np.put_along_axis(logits_RV, expected_R[:, None].astype(np.int64), -np.inf, axis=1)
    return np.stack([own_R - total_R, rank_R, own_R - logits_RV.max(axis=1)], axis=1)


def summarise(values_NQ: NDArray[np.float32], jackknife_N: NDArray[np.int64]) -> TokenSummary:
    """The figures of one layer. values_NQ: from `next_token`. jackknife_N: jackknife block of each sentence.

    >>> values_NQ = np.float32([[-0.1, 1, 2.0], [-0.3, 1, 1.0], [-2.0, 7, -3.0], [np.nan] * 3])
    >>> summary = summarise(values_NQ, np.arange(4))
    >>> summary.num_sentences, round(summary.logprob[0], 2), round(summary.top1[0], 2), summary.median_rank
    (3, -0.8, 0.67, 1.0)
    """
    known_N = np.isfinite(values_NQ[:, 0])
    if not known_N.any():
        nothing = (float("nan"),) * 3
        return TokenSummary(nothing, nothing, float("nan"), 0)
    logprob_K, rank_K = values_NQ[known_N, 0].astype(np.float64), values_NQ[known_N, 1]
    _, jackknife_K = np.unique(jackknife_N[known_N], return_inverse=True)
    top_K = (rank_K == 1).astype(np.float64)
    mean, share = float(logprob_K.mean()), float(top_K.mean())
    low, high = plain_interval(mean, _without_jackknife_blocks(logprob_K, jackknife_K), -np.inf, 0.0)
    least, most = share_interval(
        share, _without_jackknife_blocks(top_K, jackknife_K), float(len(np.unique(jackknife_K)))
    )
    return TokenSummary((mean, low, high), (share, least, most), float(np.median(rank_K)), int(known_N.sum()))


def _without_jackknife_blocks(scores_K: NDArray[np.float64], jackknife_K: NDArray[np.int64]) -> NDArray[np.float64]:
    totals_G, sums_G = np.bincount(jackknife_K), np.bincount(jackknife_K, scores_K)
    left_G = len(scores_K) - totals_G
    return np.asarray((scores_K.sum() - sums_G)[left_G > 0] / left_G[left_G > 0])
