"""A first job file for some files of texts: what to take from each, with the reasons as comments."""

from __future__ import annotations

import os
import re
import tempfile
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any

import yaml

from drillcore.backends.demo_model import DEMO_ID
from drillcore.errors import JobError, ModelError, TextError
from drillcore.job.common import NAME, expand, in_place
from drillcore.job.file import load_job
from drillcore.job.hub import is_on_hub
from drillcore.job.inputs import Dataset
from drillcore.job.model import Model, is_local
from drillcore.runtime.rows import read_tables
from drillcore.store.arrays import check_kept_names
from drillcore.system.bounds import problem_with_output
from drillcore.system.files import write_atomic
from drillcore.system.nearly import looks_like, shown
from drillcore.system.progress import ProgressListener
from drillcore.texts.formats import COMPRESSIONS
from drillcore.texts.guess import MOST_LABELS, Guess, guess_columns
from drillcore.texts.tally import Tally, tally

# Characters of a text beyond which a model's context may be too short for it.
LONG = 8000
# Labels, and columns, that are named one by one.
SHOWN = 6
OPTIONS = """
# What else a job may say, with the defaults; `drillcore schema` prints every field.
# store: runs/{stem}.zarr # a folder beside this file, or an s3:// address
# extract:
#   dtype: auto # bfloat16 on CUDA, float32 on a CPU
#   layers: all # or numbers: [0, 6, 12]
#   positions: [last] # the last token of each sentence; mean, {{last: 4}} and more go beside it
#   too_long: error # truncate keeps the first tokens of a text that is longer than the model's context
# project:
#   method: umap # or pca
# render:
#   color: label # what colours the points: the label, or a column under `keep`
"""


@dataclass(frozen=True)
class Chosen:
    """A file of texts as a dataset of the job. path: as the job writes it. why_label: also says why there is none."""

    name: str
    path: str
    guess: Guess
    tally: Tally
    label: str | None
    why_label: str
    missing: tuple[str, ...]
    keeps_id: bool
    expects_next: bool

    @property
    def num_unlabelled(self) -> int:
        """Rows without a label, those whose label stands for none among them."""
        return self.tally.num_unlabelled + sum(self.tally.labels[name] for name in self.missing)

    @property
    def labels(self) -> list[tuple[str, int]]:
        """Labels and their rows, the most frequent first."""
        return [(name, count) for name, count in self.tally.labels.most_common() if name not in self.missing]


@dataclass(frozen=True)
class NewJob:
    """A job file that was checked and is not written yet. reasons: what was decided and why, a line each."""

    path: Path
    text: str
    reasons: tuple[str, ...]

    def write(self) -> None:
        """Write the file; raises JobError where that fails."""
        try:
            write_atomic(self.path, self.text.encode())
        except OSError as error:
            what = f"{self.path} cannot be written: {error.strerror}"
            raise JobError(what, hint="Name another file with --out.") from None


def new_job(
    files: Sequence[Path], models: Sequence[str], out: Path | None, listener: ProgressListener, *, force: bool = False
) -> NewJob:
    """Look at files of texts and make a job of them; writes nothing but rows in the cache.

    models: hub ids or folders, relative to the working directory; the demo model where there is none. out: the job
    file, by default the first file's stem with .yaml in the working directory. force: whether it may be there already.
    Raises TextError where a file is not one of texts, ModelError for a folder without a model, JobError for a path
    that cannot be the job file.
    """
    for file in files:
        if is_on_hub(str(file)):
            address = str(file).replace("hf:/", "hf://", 1)
            hint = f"Write it into a job: `datasets: {address}`, with `text:` and `label:` where they have other names."
            raise TextError(f"{address} is on the hub, and init looks at files", hint=hint)
    path = Path(f"{_stem(files[0])}.yaml") if out is None else out
    _check_path(path, files, force=force)
    folder = in_place(path).parent
    chosen = list[Chosen]()
    for file in files:
        chosen.append(_choose(file, folder, [dataset.name for dataset in chosen]))
    entries, lines = _models(models, folder)
    text = "\n".join([*_head(path, chosen), "models:", *entries, "datasets:", *_datasets(chosen), ""])
    text += OPTIONS.format(stem=_one_line(path.stem))
    _check(path, folder, text, listener)
    reasons = [line for dataset in chosen for line in _reasons(dataset)] + lines
    return NewJob(path, text, tuple(reasons))


def _check_path(path: Path, files: Sequence[Path], *, force: bool) -> None:
    problem = problem_with_output(path)
    if not problem and in_place(path) in [in_place(file) for file in files]:
        problem = "is a file of texts"
    if problem:
        raise JobError(f"{path} cannot be the job file: it {problem}", hint="Name another one with --out.")
    if (path.exists() or path.is_symlink()) and not force:
        raise JobError(f"{path} is there already", hint="Name another file with --out, or overwrite it with --force.")


def _check(path: Path, folder: Path, text: str, listener: ProgressListener) -> None:
    """Read the job and all its rows as a run would; raises what a run would raise."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / path.name
        file.write_text(text, encoding="utf-8")
        try:
            loaded = load_job(file)
        except JobError as error:
            raise JobError(str(error).replace(str(file), str(path)), hint=error.hint) from None
    read_tables(loaded.model_copy(update={"base": folder, "source": str(path)}), listener)


def _choose(file: Path, folder: Path, names: Sequence[str]) -> Chosen:
    guess = guess_columns(file)
    counts = tally(guess)
    label, why, named = guess.label, guess.why_label, shown(guess.label or "")
    missing = tuple(counts.like_none)
    left = [count for name, count in counts.labels.items() if name not in missing]
    if label is not None:
        if counts.odd_labels:
            label, why = None, f"{named} holds what cannot be a label in {_rows(counts.odd_labels)}"
        elif not left and counts.range is None:
            label, why = None, f"{named} is empty in all rows"
        elif left and why != "by its name" and (min(left) < 2 or len(left) > MOST_LABELS):
            label, why = None, f"{named} has many different values"
    identifier = guess.identifier if not counts.odd_identifiers else None
    name = _name(file, names)
    return Chosen(
        name,
        _written_path(str(file), folder),
        replace(guess, groups=tuple(filter(_can_be_kept, guess.groups)), others=(*filter(_can_be_kept, guess.others),)),
        counts,
        label,
        why,
        missing if label is not None else (),
        identifier is not None and _can_be_kept(identifier),
        guess.expected_next is not None and not counts.odd_expected,
    )


def _can_be_kept(column: str) -> bool:
    try:
        check_kept_names(Dataset(name="texts", path="texts", keep=(column,)))
    except TextError:
        return False
    return True


def _stem(file: Path) -> str:
    """The name of a file without its endings.

    >>> _stem(Path("texts/my.reviews.csv.gz"))
    'my.reviews'
    """
    name = file.name
    for ending in COMPRESSIONS:
        name = name.removesuffix(ending)
    return Path(name).stem


def _name(file: Path, names: Sequence[str]) -> str:
    """A name for a file's dataset, which no other one has.

    >>> _name(Path("Käufe (2024).csv"), ["a"]), _name(Path("a.csv"), ["a"])
    ('Kaufe-2024', 'a-2')
    """
    stem = _stem(file)
    if not NAME.fullmatch(stem):
        plain = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()
        stem = re.sub(r"[^A-Za-z0-9._+=@-]+", "-", plain).strip("-._+=@")
    stem = stem[:150] or "texts"
    number = next(n for n in range(1, len(names) + 2) if (stem if n == 1 else f"{stem}-{n}") not in names)
    return stem if number == 1 else f"{stem}-{number}"


def _written_path(given: str, folder: Path) -> str:
    """A path as the job file in a folder writes it: relative to it, or as it was given where it lies elsewhere."""
    place = in_place(expand(given))
    relative = os.path.relpath(place, folder)
    if Path(given).is_absolute() and relative.startswith(".."):
        return given
    return f"./{relative}" if relative.startswith("~") else relative


def _models(given: Sequence[str], folder: Path) -> tuple[list[str], list[str]]:
    """The job's entries for the models, and lines that say what was decided."""
    if not given:
        note = "small, and fetched without a hub. Others: a hub id, or a folder that begins with ./ or /"
        return [f"  - {DEMO_ID} # {note}"], [f"model: {DEMO_ID}, the default; --model names a hub id or a folder"]
    entries, groups = list[str](), list[str]()
    for id_ in dict.fromkeys(_model_id(name, folder) for name in given):
        group = Model(id=id_).group
        same = groups.count(group)
        groups.append(group)
        entries.append(f"  - {{id: {_scalar(id_, flow=True)}, as: {_scalar(f'{group}-{same + 1}', flow=True)}}}")
        if not same:
            entries[-1] = f"  - {_scalar(id_)}"
    return entries, [f"models: {', '.join(given)}"]


def _model_id(given: str, folder: Path) -> str:
    """A model as the job writes it; raises ModelError where there is none."""
    if not given.strip() or len(given) > 200 or not given.isprintable():
        raise ModelError(f"model {shown(given)} cannot be the name of a model", hint="Name a hub id or a folder.")
    if given.startswith("demo/") and given != DEMO_ID:
        raise ModelError(f"model {given} is unknown", hint=f"The only demo model is {DEMO_ID}.")
    place = expand(given)
    if not is_local(given) and not (place / "config.json").exists():
        return given
    if not (place / "config.json").exists():
        raise ModelError(
            f"model {given}: " + (f"{place} holds no config.json" if place.exists() else f"there is no folder {place}"),
            hint="Name a directory written by save_pretrained, or a hub id such as HuggingFaceTB/SmolLM2-135M.",
        )
    written = given if given.startswith("~") else _written_path(given, folder)
    return written if is_local(written) else f"./{written}"


def _scalar(value: Any, *, flow: bool = False) -> str:
    """A value on one line of YAML, quoted where YAML would read something else.

    >>> _scalar("yes"), _scalar("a: b"), _scalar("text"), _scalar(["1", "b"])
    ("'yes'", "'a: b'", 'text', "['1', b]")
    """
    options: dict[str, Any] = {"allow_unicode": True, "width": 10**9, "default_flow_style": True}
    # Inside brackets a comma ends a value: a list of one says how it is written there.
    text: str = yaml.safe_dump([value] if flow else value, **options).removesuffix("\n").removesuffix("\n...")
    text = text[1:-1] if flow else text
    if "\n" in text:
        text = yaml.safe_dump(value, default_style='"', **options).strip()
    return text


def _head(path: Path, chosen: Sequence[Chosen]) -> Iterator[str]:
    name = quote(_one_line(path.name))
    rows = ", ".join(f"{_one_line(c.guess.path.name)} ({_rows(c.tally.num_rows)})" for c in chosen[:SHOWN])
    yield f"# Made by `drillcore init` from {rows}{', ...' if len(chosen) > SHOWN else ''}."
    yield f"# `drillcore plan {name}` shows what it will do and cost, `drillcore run {name}` runs it."
    yield "# In an editor: `drillcore schema --write job.schema.json` here, and the line that it prints at the top."


def _one_line(text: str) -> str:
    """A name inside a comment."""
    return shown(text, 200)[1:-1]


def _datasets(chosen: Sequence[Chosen]) -> Iterator[str]:
    for dataset in chosen:
        yield f"  {_scalar(dataset.name)}:"
        yield f"    path: {_scalar(dataset.path)}"
        yield from (f"    {line}" for line in _fields(dataset))


def _fields(dataset: Chosen) -> Iterator[str]:
    guess, counts = dataset.guess, dataset.tally
    if guess.kind.delimiter:
        sign = "tab" if guess.kind.delimiter == "\t" else guess.kind.delimiter
        yield f"delimiter: {_scalar(sign)} # between the fields of the file"
    if guess.is_conversation:
        yield f"messages: {_scalar(guess.text)} # {guess.why_text}; the model's own chat template writes them"
        yield "# add_generation_prompt: true # end each with what the template writes before an answer"
    else:
        yield f"text: {_scalar(guess.text)} # {guess.why_text}"
    if dataset.label is not None:
        yield f"label: {_scalar(dataset.label)} # {dataset.why_label}: {_labels(dataset)}"
    elif any(name == "label" or looks_like(name, "label") for name in guess.names if name != guess.text):
        yield f"label: null # {dataset.why_label or 'no column with few different values'}"
    if dataset.label is not None and counts.range is not None:
        yield "label_type: number"
    if dataset.label is not None and dataset.num_unlabelled:
        have = "has" if dataset.num_unlabelled == 1 else "have"
        yield f"unlabelled: keep # {_rows(dataset.num_unlabelled)} {have} no label: drawn grey; drop leaves them out"
    if dataset.missing:
        yield f"missing: {_scalar(list(dataset.missing))} # what programs write for no value; take out what is a label"
    if dataset.expects_next:
        yield f"expected_next: {_scalar(guess.expected_next)} # by its name: the text after each sentence"
    kept = [guess.identifier] if dataset.keeps_id and guess.identifier is not None else []
    if kept:
        yield f"keep: {_scalar(kept)} # stored beside each sentence"
    yield from _hints(dataset, kept)
    if counts.longest > LONG:
        yield f"# limit: 100 # the longest text has {counts.longest:,} characters; see also extract.too_long below"


def _hints(dataset: Chosen, kept: Sequence[str]) -> Iterator[str]:
    """Lines that are comments: what else the columns could be."""
    guess = dataset.guess
    taken = {guess.text, dataset.label, *kept}
    for other in _other_labels(dataset):
        yield f"# label: {_scalar(other)} # in place of the label above, if these are the labels"
    for group in guess.groups:
        if group not in taken:
            yield f"# group: {_scalar(group)} # rows of one value never stand on both sides of a fold of the probe"
    others = [name for name in guess.others if name not in taken]
    if others:
        more = f" # and {len(others) - SHOWN:,} more columns" if len(others) > SHOWN else " # other columns"
        more += "; in place of the line above" if kept else ""
        yield f"# keep: {_scalar([*kept, *others[:SHOWN]])}{more}"


def _other_labels(dataset: Chosen) -> list[str]:
    return [name for name in dataset.guess.other_labels if name != dataset.label][:SHOWN]


def _labels(dataset: Chosen) -> str:
    """The labels with their rows, in words."""
    labels, between = dataset.labels, dataset.tally.range
    if between is not None:
        return f"numbers with fractions, {between[0]:g} to {between[1]:g}, for which a regression is measured"
    listed = ", ".join(f"{_one_line(name)} ({count:,})" for name, count in labels[:SHOWN])
    return listed if len(labels) <= SHOWN else f"{len(labels):,} labels, such as {listed}"


def _reasons(dataset: Chosen) -> Iterator[str]:
    """What was decided for a dataset and why."""
    guess, counts = dataset.guess, dataset.tally
    yield f"{guess.path}: {_rows(counts.num_rows)}, dataset {dataset.name}"
    yield f"  {'messages' if guess.is_conversation else 'text'}: {shown(guess.text)}, {guess.why_text}"
    if dataset.label is not None:
        yield f"  label: {shown(dataset.label)}, {dataset.why_label}: {_labels(dataset)}"
    else:
        yield f"  label: none, {dataset.why_label or 'no column has few different values, each in several rows'}"
    if dataset.label is not None and dataset.num_unlabelled:
        as_ = f", {', '.join(map(shown, dataset.missing))} among them" if dataset.missing else ""
        yield f"  {_rows(dataset.num_unlabelled)} without a label{as_}: kept and drawn grey (unlabelled: keep)"
    if counts.num_repeated:
        yield f"  {_rows(counts.num_repeated)} with a text that stands in the file before; none is left out"
    if dataset.keeps_id:
        yield f"  keep: {shown(guess.identifier or '')}, which names the rows"
    if dataset.expects_next:
        yield f"  expected_next: {shown(guess.expected_next or '')}, by its name"
    if others := _other_labels(dataset):
        yield f"  label: perhaps rather {', '.join(map(shown, others))}; see the comment in the job"
    groups = [name for name in guess.groups if name != dataset.label]
    if groups:
        yield f"  group: perhaps {', '.join(map(shown, groups))}; see the comment in the job"


def _rows(count: int) -> str:
    return f"{count:,} row" + ("" if count == 1 else "s")
