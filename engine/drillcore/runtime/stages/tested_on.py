"""The sentences of another dataset that the probe of a dataset is tested on.

Shape legend: M labelled sentences of the dataset, T of the other one, H hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from drillcore.errors import RunError
from drillcore.job.fields import Job
from drillcore.job.groups import Group, column_of
from drillcore.job.stages import Measure
from drillcore.measures import PRIMARY, ROWS, chosen
from drillcore.measures.draws import SAMPLED, Draws
from drillcore.measures.intervals import Bounds
from drillcore.measures.separation import measure_layer
from drillcore.neighbours import Graph
from drillcore.runtime.context import Context
from drillcore.runtime.failures import check_whole
from drillcore.runtime.stages.labelled import draws_of, groups_of, labelled_rows, of_rows
from drillcore.store.group import GroupWriter
from drillcore.store.reader import column, open_dataset, read_layer


@dataclass(frozen=True)
class Tested:
    """What a probe is tested on.

    path: of the other dataset's group. rows_T: its sentences with a label, None for all. draws: of the labelled
    sentences of both datasets, the tested ones last: for the probe and its controls.
    """

    path: str
    rows_T: NDArray[np.int64] | None
    draws: Draws

    @property
    def dataset(self) -> str:
        """Name of the group within its model."""
        return self.path.rsplit("/", 1)[-1]

    def with_states(self, states_MH: NDArray[np.float32], store: str, slot: int) -> NDArray[np.float32]:
        """The states of the labelled sentences of both datasets at a layer."""
        states_TH = read_layer(open_dataset(store, self.path), slot)
        return np.concatenate([states_MH, of_rows(states_TH, self.rows_T)])

    def with_column(self, values_M: NDArray[Any] | None, store: str, name: str) -> NDArray[Any] | None:
        """A coordinate of the labelled sentences of both datasets; None where one of them has none."""
        values_T = column(open_dataset(store, self.path), name)
        return (
            None if values_M is None or values_T is None else np.concatenate([values_M, of_rows(values_T, self.rows_T)])
        )


def other_of(context: Context, dataset: Group, model: str) -> GroupWriter | None:
    """The group that a dataset's probe is tested on, None where it is no other; raises RunError for one not whole."""
    if dataset.tested_group is None:
        return None
    other = context.store.dataset(model, dataset.tested_group)
    try:
        check_whole(other)
    except RunError as error:
        raise RunError(f"{other.group.path}, which its probe is tested on: {error}", hint=error.hint) from None
    return other


def column_there(job: Job, dataset: Group, label: str) -> str:
    """The column of a label in the dataset that the probe is tested on.

    Labels go by their fields where a dataset has several; the main one is "".
    """
    other = next((each for each in job.datasets if each.name == dataset.tested_on), None)
    if other is None or not (dataset.more_labels or other.more_labels):
        return "label"
    return column_of(other, label or str(dataset.label_field))


def tested_of(
    own: zarr.Group,
    rows_M: NDArray[np.int64] | None,
    other: zarr.Group,
    settings: Measure,
    of_own: Draws,
    names: tuple[str, str],
) -> Tested:
    """What the probe of a group is tested on in another one.

    rows_M, of_own: its labelled sentences, and their draws. names: the columns of the labels, here and there.
    """
    rows_T = labelled_rows(column(other, names[1]))
    labels, groups = (
        [of_rows(values, rows) for values, rows in ((one, rows_M), (two, rows_T)) if values is not None]
        for one, two in ((column(own, names[0]), column(other, names[1])), (groups_of(own), groups_of(other)))
    )
    is_test = np.repeat([False, True], [len(each) for each in groups])
    # Both have labels: preflight refuses a job where one has none.
    draws = draws_of(np.concatenate(labels), np.concatenate(groups), settings, len(is_test), is_test)
    notes = [n for n in draws.notes if not n.startswith(SAMPLED)] + [n for n in of_own.notes if n.startswith(SAMPLED)]
    return Tested(other.path, rows_T, replace(draws, notes=tuple(notes), sample_S=of_own.sample_S))


def measure_tested(
    states_MH: NDArray[np.float32],
    both_H: NDArray[np.float32],
    settings: Measure,
    draws: Draws,
    tested: Tested,
    graph: Graph | None,
) -> dict[str, Bounds]:
    """Every measure of a layer, by name: of the probe on the other dataset, and the others of its own sentences.

    both_H: the states of both datasets, as `Tested.with_states` gives them.
    """
    names = chosen(settings.metrics)
    others = tuple(name for name in names if name != PRIMARY and tested.draws.values_U is None)
    found = dict[str, Bounds]()
    if others != names:
        found |= measure_layer(both_H, settings.model_copy(update={"metrics": (PRIMARY,)}), tested.draws)
    if others:
        found |= measure_layer(states_MH, settings.model_copy(update={"metrics": others}), draws, graph)
    return {name: found[name] for name in ROWS if name in found}
