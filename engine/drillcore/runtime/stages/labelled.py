"""The sentences of a group whose labels count, and what is drawn of them.

Shape legend: N sentences, M labelled ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from drillcore.job.stages import Measure
from drillcore.measures.draws import Draws, make_draws
from drillcore.measures.numbers import number_draws
from drillcore.store.reader import column


def labelled_rows(labels: NDArray[Any] | None) -> NDArray[np.int64] | None:
    """The sentences that have a label; None where all of them or none have one.

    Those without one are not in the measured dataset at all: not in its mean, nor among the neighbours.

    >>> labelled_rows(np.array(["a", "", "b"], object))
    array([0, 2])
    >>> labelled_rows(np.array([0.5, np.nan, 2.0]))
    array([0, 2])
    """
    if labels is None:
        return None
    # No label is an empty string, or NaN where labels are numbers.
    has_label_N = np.array([label != "" and label == label for label in labels], bool)
    return None if has_label_N.all() or not has_label_N.any() else np.flatnonzero(has_label_N)


def of_rows(values_N: NDArray[Any], rows_M: NDArray[np.int64] | None) -> NDArray[Any]:
    """The values of some rows; of all where these are None."""
    return values_N if rows_M is None else values_N[rows_M]


def groups_of(group: zarr.Group) -> NDArray[Any] | None:
    """What a fold must not separate [N]: the groups that the dataset names, else equal texts."""
    return column(group, "group") if "group" in group else column(group, "row_id")


def draws_of(
    labels: NDArray[Any] | None,
    groups: NDArray[Any] | None,
    settings: Measure,
    num_rows: int,
    is_test_N: NDArray[np.bool_] | None,
) -> Draws:
    """The draws of classes, or of numbers."""
    if labels is not None and labels.dtype.kind == "f":
        return number_draws(labels, groups, settings, is_test_N)
    return make_draws(labels, groups, settings, num_rows, is_test_N)
