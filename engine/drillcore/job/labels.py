"""Several labels of a dataset: what the job may say of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from drillcore.job.choices import shortened

# Each is measured at every layer, and has pictures of its own.
MOST_LABELS = 20
MOST_LABEL_BYTES = 100


def with_one_label(value: dict[str, Any]) -> dict[str, Any]:
    """A dataset whose `labels` name one field alone, as one with a `label`.

    >>> with_one_label({"path": "a.csv", "labels": ["city"]})
    {'path': 'a.csv', 'label': 'city'}
    """
    match value.get("labels"):
        case [str(name)] if name != "auto" and "label" not in value:
            return {**{key: given for key, given in value.items() if key != "labels"}, "label": name}
    return value


def check_labels(labels: Sequence[str], label: str | None, named: Mapping[str, str]) -> None:
    """Check the fields of several labels; raises ValueError.

    label: what the dataset says of its one label. named: fields that its other settings name, and the setting of each.
    """
    if not labels:
        return
    if label != "auto":
        raise ValueError("labels: stands in place of `label`: name all fields in `labels`, the main one first")
    if len(labels) > MOST_LABELS:
        raise ValueError(f"labels: names {len(labels)} fields; at most {MOST_LABELS} are measured")
    long = next((name for name in labels if len(name.encode()) > MOST_LABEL_BYTES), None)
    if long is not None:
        raise ValueError(
            f"labels: {shortened(long)} is longer than {MOST_LABEL_BYTES} bytes, and names files: rename the field"
        )
    twice = next((name for name in labels if labels.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"labels: names {shortened(twice)} twice")
    for name in labels:
        if name.startswith("~"):
            raise ValueError(f"labels: {shortened(name)} begins with ~, which separates names of pictures: rename it")
        if name in named:
            raise ValueError(f"labels: {shortened(name)} is the field of `{named[name]}` too: name it in one of them")
