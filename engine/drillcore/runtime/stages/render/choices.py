"""What else than its labels the page can colour the sentences of a dataset by: columns, tokens, the probe's decisions.

Shape legend: N sentences, R rows of the grid (models), L layers as stored.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from drillcore.job.groups import Group
from drillcore.job.stages import Render
from drillcore.pictures.colors import place_labels, value_steps
from drillcore.pictures.data import Choice
from drillcore.pictures.report.choices import step_places
from drillcore.pictures.report.encode import cut
from drillcore.runtime.context import Context
from drillcore.runtime.results import DECISIONS, read_decisions, result_facts
from drillcore.runtime.stages.render.grids import GridSpec
from drillcore.runtime.stages.render.layers import MAIN, slots_of
from drillcore.store.arrays import of_label
from drillcore.store.layout import read_array
from drillcore.store.reader import column, num_rows

# Values with a colour of their own, the most frequent ones.
MOST_COLORS = 20
OTHERS = "(other values)"
# Distinct values that the page can name; of more, only those with a colour of their own.
MOST_VALUES = 2_000
MOST_CHARACTERS = 80
RIGHT, WRONG = "right", "wrong"


def choices_of(context: Context, spec: GridSpec) -> tuple[Choice, ...]:
    """All choices of a grid of the report, in the order in which the page offers them."""
    dataset, render = _dataset_of(context, spec), context.job.render
    groups = [writer.group for _, writer in spec.members]
    found = [_of_column(groups[0], *named) for named in _columns(dataset, render)]
    found += [_of_lengths(groups), _of_tokens(context, groups)] if "n_tokens" in groups[0] else []
    found += [_of_decisions(groups, render, label, name) for label, name in _decided(dataset, spec, render)]
    return tuple(choice for choice in found if choice is not None and choice.key != f"column {render.color}")


def choice_inputs(context: Context, spec: GridSpec) -> list[str]:
    """What the choices of a grid depend on that its points do not."""
    labels = [label for label, _ in _decided(_dataset_of(context, spec), spec, context.job.render)]
    return [w.result_made_from(of_label(DECISIONS, label)) for label in labels for _, w in spec.members]


def _dataset_of(context: Context, spec: GridSpec) -> Group:
    name = spec.members[0][1].group.path.partition("/")[2]
    return next(g for g in context.job.groups if g.name == name)


def _columns(dataset: Group, render: Render) -> list[tuple[str, str, str]]:
    """Coordinate, key and name of each column that is a choice: labels that have no pictures, and kept ones."""
    labels: list[tuple[str, str]] = []
    if render.color != MAIN and dataset.label_field is not None:
        labels = [(MAIN, str(dataset.label_field)), *((name, name) for name in dataset.more_labels)]
    columns = [*labels, *((name, name) for name in dataset.keep if name not in dict(labels))]
    return [(name, f"column {name}", shown) for name, shown in columns]


def _decided(dataset: Group, spec: GridSpec, render: Render) -> list[tuple[str, str]]:
    """The labels that the probes of a grid decide between, and the names of these choices."""
    name = "probe's decision"
    if render.color == MAIN:
        return [(spec.label, name)]
    more = [(label, f"{name}, {label}") for label in dataset.more_labels]
    return [("", f"{name}, {dataset.label_field}" if more else name), *more]


def _of_column(group: zarr.Group, name: str, key: str, shown: str) -> Choice | None:
    values = column(group, name)
    if values is None:
        return None
    if values.dtype.kind in "iuf" and not (name == MAIN and values.dtype.kind != "f"):
        return of_numbers(key, shown, [values])
    names, codes_N = np.unique(np.array([str(value) for value in values], object), return_inverse=True)
    # An empty text is none, and the first of all.
    has_none = bool(len(names)) and names[0] == ""
    return of_words(key, shown, names[int(has_none) :].tolist(), [codes_N - int(has_none)])


def _of_lengths(groups: Sequence[zarr.Group]) -> Choice | None:
    values = [column(group, "n_tokens") for group in groups]
    return of_numbers("column n_tokens", "number of tokens", [v for v in values if v is not None])


def _of_tokens(context: Context, groups: Sequence[zarr.Group]) -> Choice | None:
    """The token whose state is drawn, as it is written, with its id: two may be written alike."""
    at_place = "token_id" in groups[0]
    number_of: dict[str, int] = {}
    codes = []
    for group in groups:
        ids_N = column(group, "token_id" if at_place else "last_token_id")
        if ids_N is None:
            return None
        tokenizer = context.inputs.tokenizers[group.path.partition("/")[0]]
        ids, place_N = np.unique(ids_N, return_inverse=True)
        texts = [tokenizer.written_bytes(int(i)).decode("utf-8", "replace") if i >= 0 else "" for i in ids]
        words = [f"{json.dumps(text, ensure_ascii=False)} ({i})" for text, i in zip(texts, ids, strict=True)]
        codes.append(np.array([number_of.setdefault(word, len(number_of)) for word in words])[place_N])
    key = f"column {'token_id' if at_place else 'last_token_id'}"
    return of_words(key, "token" if at_place else "last token", list(number_of), codes)


def of_words(key: str, name: str, words: Sequence[str], codes_R: Sequence[NDArray[np.integer]]) -> Choice | None:
    """A choice of values that are no numbers; None where no sentence has one.

    codes_R: for each row of the grid, the places in `words` of what its sentences have [N]; negative for nothing.

    >>> choice = of_words("k", "kind", ["a", "b"], [np.array([1, 0, 1, -1])])
    >>> choice.categories, choice.places.tolist(), choice.codes[0]().tolist()
    (('a', 'b'), [0, 1], [1, 0, 1, -1])
    """
    counts = sum(np.bincount(codes_N[codes_N >= 0], minlength=len(words)) for codes_N in codes_R)
    if not len(words) or not np.any(counts):
        return None
    top = np.argsort(-np.asarray(counts), kind="stable")[:MOST_COLORS]
    shown = [cut(word, MOST_CHARACTERS) for word in words]
    categories, order = place_labels([shown[i] for i in top], np.asarray(counts)[top])
    places = np.full(len(words), len(categories), np.int32)
    places[top] = order
    has_others = len(top) < len(words)
    categories = (*categories, OTHERS) if has_others else categories
    if len(words) > MOST_VALUES:
        codes_R = [np.where(codes_N < 0, -1, places[codes_N]) for codes_N in codes_R]
        shown, places = list(categories), np.arange(len(categories), dtype=np.int32)
    return Choice(key, name, _same(codes_R), tuple(shown), places, categories, has_others=has_others)


def of_numbers(key: str, name: str, values_R: Sequence[NDArray[Any]]) -> Choice | None:
    """A choice of numbers along a colour bar; None where no sentence has one.

    values_R: for each row of the grid those of its sentences [N], NaN for nothing. What is infinite has the colour of
    the bar's end.

    >>> choice = of_numbers("n", "score", [np.array([0.5, np.nan, 2.0])])
    >>> choice.words, choice.places.tolist(), choice.value_range, choice.codes[0]().tolist()
    (('0.5', '2.0'), [0, 255], (0.5, 2.0), [0, -1, 1])
    """
    every = np.concatenate(values_R)
    distinct = np.unique(every[every == every])
    if not len(distinct):
        return None
    finite = distinct[np.isfinite(distinct)]
    low, high = (float(finite[0]), float(finite[-1])) if len(finite) else (0.0, 0.0)
    steps = value_steps(np.clip(distinct.astype(np.float64), low, high), low, high)
    codes_R = [np.where(v == v, np.searchsorted(distinct, np.where(v == v, v, distinct[0])), -1) for v in values_R]
    if len(distinct) > MOST_VALUES:
        codes_R = [np.where(codes_N < 0, -1, steps[codes_N]) for codes_N in codes_R]
        return Choice(key, name, _same(codes_R), (), step_places(), value_range=(low, high))
    words = tuple(str(int(v)) if distinct.dtype.kind in "iu" else repr(float(v)) for v in distinct)
    return Choice(key, name, _same(codes_R), words, steps, value_range=(low, high))


def _same(codes_R: Sequence[NDArray[np.integer]]) -> tuple[Callable[[], NDArray[np.integer]], ...]:
    """The codes of each row of the grid; once where all rows have the same."""
    wide_R = [codes_N.astype(np.int32) for codes_N in codes_R]
    if all(np.array_equal(wide_R[0], other) for other in wide_R[1:]):
        wide_R = wide_R[:1]
    return tuple(partial(_given, codes_N) for codes_N in wide_R)


def _given(codes_N: NDArray[np.int32]) -> NDArray[np.int32]:
    return codes_N


def _of_decisions(groups: Sequence[zarr.Group], render: Render, label: str, name: str) -> Choice | None:
    """Whether the probe of each panel's layer is right about a sentence, and what it takes it for."""
    stored = [_labels_decided(group, label) for group in groups]
    labels = next((of for of in stored if of is not None), None)
    if labels is None:
        return None
    codes = tuple(
        partial(_decisions, group, render, label, labels if own == labels else None)
        for group, own in zip(groups, stored, strict=True)
    )
    words = (RIGHT, *(f"{WRONG}, taken for {cut(each, MOST_CHARACTERS)}" for each in labels))
    places = np.array([1, *[0] * len(labels)], np.int32)
    key = f"decision {label}" if render.color != MAIN else "decision"
    return Choice(key, name, codes, words, places, (WRONG, RIGHT), missing="no decision")


def _labels_decided(group: zarr.Group, label: str) -> tuple[str, ...] | None:
    """The labels that the stored decisions of a group are between; None where there are none."""
    facts = result_facts(group, of_label(DECISIONS, label))
    return None if facts is None else tuple(facts["labels"])


def _decisions(group: zarr.Group, render: Render, label: str, labels: tuple[str, ...] | None) -> NDArray[np.int16]:
    """0 where the probe is right, 1 + the label that it takes a sentence for where it is wrong [P, N]."""
    decisions = read_decisions(group, label) if labels else None
    labels_N = column(group, label or MAIN)
    if decisions is None or labels_N is None:
        return np.full(num_rows(group), -1, np.int16)
    place_of = {name: k for k, name in enumerate(decisions.labels)}
    # Neither a label that takes no part nor nothing, which stays -1, is right.
    own_N = np.array([place_of.get(str(each), -2) for each in labels_N], np.int16)
    decided_PN = decisions.codes_LN[slots_of(render, read_array(group, "layer").tolist())]
    return np.where(decided_PN == own_N, np.int16(0), decided_PN + (decided_PN >= 0)).astype(np.int16)
