"""Controls: probes on what needs no model, namely the last token with the length, and the words of the sentence.

A layer holds more than these surface facts only where its probe beats them.
Shape legend: U sentences whose labels count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack

from drillcore.job.stages import Measure
from drillcore.measures import CONTROLS, OF_NUMBERS, PRIMARY
from drillcore.measures.draws import Draws
from drillcore.measures.intervals import Bounds, skip
from drillcore.measures.probe import Probe, without_scatter
from drillcore.measures.regression import Regression
from drillcore.measures.separation import Separation, combine

# The probe's cost grows with the square of the features.
MOST_FEATURES = 1000
LENGTH_BINS = 20


def controls(
    texts: Sequence[str],
    last_token_ids: NDArray[np.integer[Any]],
    n_tokens: NDArray[np.integer[Any]],
    settings: Measure,
    draws: Draws,
) -> dict[str, Separation]:
    """The probe, with the folds and permutations of the layers, on each control's features.

    Each Separation has one layer and the one measure `probe`, or `r2` where the labels are numbers; where it was
    skipped its values are NaN.
    """
    rows_U = draws.rows_U
    features: dict[str, Callable[[], Any]] = {
        "last_token_and_length": lambda: last_token_and_length(last_token_ids[rows_U], n_tokens[rows_U]),
        "tfidf": lambda: tfidf([texts[k] for k in rows_U]),
    }
    metric = PRIMARY if draws.values_U is None else OF_NUMBERS
    return {name: combine([{metric: _probe(features[name], draws)}]) for name in CONTROLS}


def last_token_and_length(last_token_ids_U: NDArray[Any], n_tokens_U: NDArray[Any]) -> csr_matrix:
    """One column for each frequent last token, one for the length in tokens, and one for each range of lengths.

    >>> last_token_and_length(np.array([5, 5, 9]), np.array([2, 4, 6])).toarray()[:, :2].round(2).tolist()
    [[1.0, -1.22], [1.0, 0.0], [0.0, 1.22]]
    """
    length_U = n_tokens_U.astype(np.float64)
    spread = length_U.std()
    linear_U1 = csr_matrix(((length_U - length_U.mean()) / (spread if spread > 0 else 1))[:, None])
    edges = np.unique(np.quantile(length_U, np.linspace(0, 1, LENGTH_BINS + 1)[1:-1]))
    parts = [_columns(last_token_ids_U), linear_U1, _columns(np.searchsorted(edges, length_U))]
    return csr_matrix(hstack(parts))


def tfidf(texts: Sequence[str]) -> csr_matrix | None:
    """TF-IDF of the 1,000 most frequent words, punctuation marks and pairs of them; None where the texts hold none.

    >>> matrix = tfidf(["a cat", "a dog"])
    >>> None if matrix is None else matrix.shape  # a, cat, dog, "a cat", "a dog"
    (2, 5)
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    maker = TfidfVectorizer(
        max_features=MOST_FEATURES, ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\w+|[^\w\s]"
    )
    try:
        return csr_matrix(maker.fit_transform(texts))
    except ValueError as error:
        if "empty vocabulary" in str(error):
            return None
        raise


def _columns(values_U: NDArray[Any]) -> csr_matrix:
    """1 where a sentence has a value; the 1,000 most frequent of the values that at least two sentences have."""
    names, place_U, counts = np.unique(values_U, return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    frequent = order[counts[order] > 1][:MOST_FEATURES]
    column = np.full(len(names), -1)
    column[frequent] = np.arange(len(frequent))
    rows = np.flatnonzero(column[place_U] >= 0)
    shape = (len(values_U), max(1, len(frequent)))
    return csr_matrix((np.ones(len(rows), np.float32), (rows, column[place_U][rows])), shape=shape)


def _probe(features: Callable[[], Any], draws: Draws) -> Bounds:
    if draws.skipped:
        return skip(draws.skipped)
    matrix = features()
    if matrix is None:
        return skip("the texts hold no words")
    if not _varies(matrix):
        return skip(f"the same in all {matrix.shape[0]:,} sentences")
    reason = without_scatter(matrix, draws)
    return skip(reason) if reason else (Probe if draws.values_U is None else Regression)(matrix, draws).measure()


def _varies(features: csr_matrix) -> bool:
    spread = features.max(axis=0).toarray() - features.min(axis=0).toarray()
    return bool(spread.max() > 0)
