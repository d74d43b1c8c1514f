"""What a job's datasets become in a store: a group for each position, and what has to be read for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from drillcore.job.common import MOST
from drillcore.job.inputs import Dataset
from drillcore.job.positions import LAST, Position

if TYPE_CHECKING:
    from drillcore.job.fields import Job

SEPARATOR = "~"


class Group(Dataset):
    """A dataset at one position, or one of its branches: what a group of the store holds for a model.

    of: the dataset's own name, without that of a template. branch: name of the branch; empty where it is none.
    """

    of: str = ""
    position: Position = LAST
    branch: str = ""

    @property
    def tested_group(self) -> str | None:
        """Name of the group that its probe is tested on: of the other dataset, at the same position or branch."""
        return None if self.tested_on is None else self.tested_on + self.name.removeprefix(self.of)


class Reading(Dataset):
    """A dataset, and the fields that positions need of its rows. Each is a column, as if it were kept.

    spans: fields that hold the first character and the one after the last of a place in the text. found: fields whose
    text stands in the sentence, and which occurrence is meant: 0 for the last, or its number from 1.
    """

    spans: tuple[tuple[str, str], ...] = ()
    found: tuple[tuple[str, int], ...] = ()


def groups_of(job: Job) -> tuple[Group, ...]:
    """The groups of each model: every dataset at every position, and its branches.

    >>> from drillcore.job.fields import Job
    >>> job = {"models": ["./m"], "datasets": {"d": "d.csv"}, "extract": {"positions": ["last", "mean"]}}
    >>> [(g.name, g.of, g.position.kind) for g in groups_of(Job.model_validate(job))]
    [('d', 'd', 'last'), ('d~mean', 'd', 'mean')]
    """
    found = list[Group]()
    for dataset in (each for named in job.datasets for each in by_template(named)):
        found += [group_of(dataset, position) for position in positions_of(job, dataset)]
        found += [branch_of(dataset, name) for name in dataset.branches]
    return tuple(found)


def by_template(dataset: Dataset) -> tuple[Dataset, ...]:
    """A dataset for each of its templates, under the name of its group; itself where it has at most one.

    >>> templates = {"short": "{{ q }}", "long": "Question: {{ q }}"}
    >>> [(d.name, d.template) for d in by_template(Dataset(name="d", path="d.csv", templates=templates))]
    [('d~short', '{{ q }}'), ('d~long', 'Question: {{ q }}')]
    """
    if not dataset.templates:
        return (dataset,)
    return tuple(
        dataset.model_copy(update={"name": f"{dataset.name}{SEPARATOR}{name}", "template": text, "templates": {}})
        for name, text in dataset.templates.items()
    )


def positions_of(job: Job, dataset: Dataset) -> tuple[Position, ...]:
    """The positions of a dataset: its own, or those of all."""
    return dataset.positions or job.extract.positions


def group_of(dataset: Dataset, position: Position) -> Group:
    """A dataset at a position. What is expected to follow a sentence follows its last token alone."""
    fields = dict(_fields(dataset))
    if not position.is_last:
        name = f"{dataset.name}{SEPARATOR}{position.called}"
        fields |= {"name": name, "expected_next": None, "candidates": ()}
    return Group.model_construct(**fields, of=dataset.name.partition(SEPARATOR)[0], position=position)


def branch_of(dataset: Dataset, name: str) -> Group:
    """A branch of a dataset: its sentences in the branch's template, at their last tokens."""
    fields = dict(_fields(dataset))
    fields |= {"template": dataset.branches[name], "expected_next": None, "candidates": ()}
    fields |= {"name": f"{dataset.name}{SEPARATOR}{name}"}
    return Group.model_construct(**fields, of=dataset.name, branch=name)


def reading_of(dataset: Dataset, positions: Iterable[Position]) -> Dataset:
    """The dataset as its file is to be read; itself where no position needs further fields."""
    spans: dict[tuple[str, str], None] = {}
    found: dict[tuple[str, int], None] = {}
    for position in positions:
        if position.span is not None:
            spans[position.span] = None
        elif position.text is not None:
            found[position.text, number_of(position)] = None
    if not spans and not found:
        return dataset
    named = [field for pair in spans for field in pair] + [field for field, _ in found]
    has = {dataset.text, dataset.group, dataset.expected_next, dataset.split_field}
    has |= {dataset.label_field, *dataset.more_labels, *dataset.keep}
    kept = (*dataset.keep, *(field for field in dict.fromkeys(named) if field not in has))
    return Reading.model_construct(**{**dict(_fields(dataset)), "keep": kept}, spans=(*spans,), found=(*found,))


def number_of(position: Position) -> int:
    """Which occurrence of its text a position means: its number from 1, or 0 for the last one."""
    if isinstance(position.occurrence, int):
        return position.occurrence
    return 0 if position.occurrence == "last" else 1


def allow_sizes(job: Job) -> Job:
    """The job with any number of bytes allowed for every token's states."""

    def allowed(positions: tuple[Position, ...]) -> tuple[Position, ...]:
        changed = {"max_bytes": MOST}
        return tuple(
            p if p.all is None else p.model_copy(update={"all": p.all.model_copy(update=changed)}) for p in positions
        )

    datasets = tuple(
        d if d.positions is None else d.model_copy(update={"positions": allowed(d.positions)}) for d in job.datasets
    )
    extract = job.extract.model_copy(update={"positions": allowed(job.extract.positions)})
    return job.model_copy(update={"extract": extract, "datasets": datasets})


def column_of(dataset: Dataset, field: str) -> str:
    """The column that holds a field of the rows."""
    own = {dataset.text: "text", dataset.group: "group", dataset.expected_next: "expected_next"}
    return own.get(field, "label" if field == dataset.label_field else field)


def _fields(dataset: Dataset) -> Iterator[tuple[str, Any]]:
    return ((name, getattr(dataset, name)) for name in Dataset.model_fields)
