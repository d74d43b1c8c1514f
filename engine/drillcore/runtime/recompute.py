"""`drillcore verify --recompute`: rows of a store against their texts, computed again alone, and canaries first.

The store is only read, and the job is taken from the manifest beside it. Texts are those of the store: what is looked
for is a text that does not belong to its states.

Shape legend: C audited sentences.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from pydantic import ValidationError

from drillcore.backends import is_audited
from drillcore.backends.alone import Alone
from drillcore.backends.source import ModelSource, locate
from drillcore.errors import DrillcoreError, StoreError
from drillcore.job.extract import Extract
from drillcore.job.fields import Job
from drillcore.job.groups import Group
from drillcore.job.model import Model
from drillcore.runtime.audit import LONGEST_ALONE, Witness, choose_rows, column_rows, compare, confirmed
from drillcore.runtime.canaries import changed, stored_tokens
from drillcore.runtime.continuing import around_of
from drillcore.runtime.manifest import read_manifest
from drillcore.runtime.positions import place_again
from drillcore.store.arrays import CANARIES
from drillcore.store.attributes import attributes_of
from drillcore.store.canaries import read_canaries
from drillcore.store.checks.finding import Finding
from drillcore.store.group import GroupWriter
from drillcore.store.layout import Shape, read_array
from drillcore.store.reader import Coordinate
from drillcore.store.states import StatesReader
from drillcore.system.bounds import problem_with_folder
from drillcore.tokens.places import Places
from drillcore.tokens.sequences import Sequences

Line = str


@dataclass(frozen=True)
class RecordedJob:
    """The job that last ran on a store, and the folder that its relative paths start from."""

    job: Job
    base: Path


def recorded_job(folder: Path) -> RecordedJob:
    """The job in the manifest of a folder; raises StoreError where there is none that can be read."""
    facts = read_manifest(folder / "manifest.json")
    try:
        base = Path(facts.get("base", "."))
        if problem_with_folder(base):
            raise TypeError
        return RecordedJob(Job.model_validate(facts["job"]), base)
    except (KeyError, TypeError, ValidationError) as error:
        what = "no manifest.json with a job" if isinstance(error, KeyError) else "a manifest.json of another version"
        raise StoreError(
            f"{folder} holds {what}: the models to compute again are not known",
            hint="Name the folder that the run wrote its manifest to with --out, or run the job once more.",
        ) from None


def recompute_rows(root: zarr.Group, recorded: RecordedJob, count: int, seed: int) -> Iterator[Finding | Line]:
    """Compute rows of every group again; yields a line for what was compared, and a finding for what is wrong.

    count: seeded rows of each group, beside the longest and those at the ends of shards and blocks.
    """
    by_name = {model.group: model for model in recorded.job.models}
    for name, group in sorted(root.groups()):
        if name not in by_name or not is_audited(recorded.job.extract.backend):
            why = "its backend has no plain way" if name in by_name else "the last job does not name it"
            yield f"{name}: not computed again: {why}"
            continue
        try:
            yield from _ModelRows(recorded, by_name[name], group).results(count, seed)
        except DrillcoreError as error:
            yield Finding(name, CANARIES, f"could not be computed again: {error}")


@dataclass(frozen=True)
class _Chosen:
    """Rows of one dataset's group that are computed again, and their texts, encoded."""

    group: zarr.Group
    shape: Shape
    layers: tuple[int, ...]
    rows_C: NDArray[np.int64]
    sentences: Witness


def numbers_within(group: zarr.Group, rows_C: NDArray[np.int64]) -> list[int]:
    """Which of its sentence's rows each row is; 0 where a sentence has one."""
    if "row_size" not in group:
        return [0] * len(rows_C)
    first_N1 = np.concatenate([[0], np.cumsum(read_array(group, "row_size"))])
    numbers: list[int] = (rows_C - first_N1[read_array(group, "sentence")[rows_C]]).tolist()
    return numbers


def sentence_of(group: zarr.Group, row: int) -> int:
    """The sentence of a row; a row is a sentence where each has one."""
    return int(read_array(group, "sentence")[row]) if "row_size" in group else row


class _ModelRows:
    """One model of a store: its canaries, and rows of its datasets."""

    def __init__(self, recorded: RecordedJob, model: Model, group: zarr.Group) -> None:
        self._group, self._job = group, recorded.job
        self._numerics: dict[str, Any] = attributes_of(group).get("numerics", {})
        # In the dtype of the stored states, whatever device this is.
        settings = {"dtype": self._numerics.get("dtype", "auto"), "device": "auto"}
        self._extract: Extract = recorded.job.extract.model_copy(update=settings)
        source = locate(model, recorded.base)
        self._source: ModelSource = replace(source, model=model.model_copy(update={"dtype": None}))
        self._tokenizer = source.tokenizer(recorded.job.extract.special_tokens)

    def results(self, count: int, seed: int) -> Iterator[Finding | Line]:
        """Canaries first: where the model has changed, rows tell nothing of the store."""
        from drillcore.backends.transformers.plain import alone_states

        chosen: list[_Chosen] = []
        for name, group in sorted(self._group.groups()):
            yield from self._choose(name, group, count, seed, chosen)
        if not chosen:
            return
        canaries = read_canaries(self._group)
        known = Sequences.of([]) if canaries is None else stored_tokens(canaries)
        layers = sorted({layer for each in chosen for layer in each.layers})
        sentences = Sequences.of([*known, *(ids for each in chosen for ids in each.sentences.tokens)])
        parts = [Places.last(known), *(e.sentences.places or Places.last(e.sentences.tokens) for e in chosen)]
        places = None if all(e.sentences.places is None for e in chosen) else replace(Places.join(parts), is_mean=True)
        alone = alone_states(self._source, self._extract, layers, sentences, places)
        if canaries is not None:
            change = changed(canaries, alone.part(0, len(known)), layers, self._source)
            if change.what:
                what = f"the model has changed: {change.what}; changed: {change.named}"
                yield Finding(self._group.path, CANARIES, what)
                return
            yield f"{self._group.path}: its {len(known)} canary sentences have the states that are stored"
        start = len(known)
        for each in chosen:
            part = alone.part(start, start + len(each.rows_C)).at([layers.index(k) for k in each.layers])
            start += len(each.rows_C)
            yield from self._compare(each, part)

    def _choose(
        self, name: str, group: zarr.Group, count: int, seed: int, chosen: list[_Chosen]
    ) -> Iterator[Finding | Line]:
        """Add the rows of a dataset that can be computed; yields what is wrong with their texts."""
        dataset = next((d for d in self._job.groups if d.name == name), None)
        if dataset is None or "hidden_states" not in group:
            yield f"{group.path}: not computed again: the last job does not name it"
            return
        shape, committed = StatesReader(group).shape, GroupWriter(group).committed()
        row_id, lengths_N = Coordinate(group, "row_id")[:], Coordinate(group, "n_tokens")[:].astype(np.int64)
        shards = [shape.bounds(shard) for shard, fingerprint in enumerate(committed) if fingerprint]
        block = int(self._numerics.get("block_sentences", shape.shard)) // shape.shard * shape.shard
        block = shape.shard if shape.rows is not None else max(block, 1)
        of_rows = "token" if "token" in group else "message"
        token = Coordinate(group, of_rows)[:] if shape.rows is not None else np.zeros(len(row_id))
        rows_C = choose_rows(lengths_N, shards, block, count, 0, lambda r: (str(row_id[r]), int(token[r])), seed)
        texts = [str(text) for text in column_rows(group, "text", rows_C)]
        encoded = self._tokenizer.encode(texts, around_of(dataset)) if texts else []
        limit = self._source.facts.max_tokens if self._job.extract.too_long == "truncate" else None
        tokens = [ids[:limit] for ids in encoded]
        last = column_rows(group, "last_token_id", rows_C)
        for row, ids, end in zip(rows_C.tolist(), tokens, last, strict=True):
            if len(ids) != lengths_N[row] or ids[-1:] != [end]:
                what = f"has {len(ids)} tokens now, and {lengths_N[row]} in the store, or another last one"
                number = sentence_of(group, row)
                yield Finding(group.path, "text", what, sentences=(number, number), mend="columns")
        fitting = np.array([c for c, ids in enumerate(tokens) if 0 < len(ids) <= LONGEST_ALONE], np.int64)
        layers = tuple(int(k) for k in read_array(group, "layer"))
        if len(fitting):
            rows = Witness(Sequences.of(tokens).take(fitting))
            if not dataset.position.is_last:
                rows = yield from self._placed(dataset, group, rows_C[fitting], rows.tokens)
            chosen.append(_Chosen(group, shape, layers, rows_C[fitting], rows))

    def _placed(
        self, dataset: Group, group: zarr.Group, rows_C: NDArray[np.int64], tokens: Sequences
    ) -> Generator[Finding | Line, None, Witness]:
        """The places of some rows, found again in their texts; yields those that are not the stored ones."""
        names = ["text", *(name for name, _ in attributes_of(group).get("columns", []) if name != "text")]
        columns = {name: column_rows(group, name, rows_C) for name in names}
        table = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        placed = place_again(dataset, table, tokens, self._tokenizer)
        places = list[Places]()
        for c, (row, number) in enumerate(zip(rows_C.tolist(), numbers_within(group, rows_C), strict=True)):
            found, known = placed.places(c, c + 1), placed.columns(c, c + 1)
            if found.row_Q is not None:
                number = min(number, found.num_rows - 1)
                found = Places.of([found.index_Q[found.row_Q == number]], is_mean=True)
            elif not found.is_mean:
                # One that the sentence no longer has is named by its coordinate.
                found = Places.of([found.index_Q[[min(number, len(found.index_Q) - 1)]]])
            places.append(found)
            for name, values in known.items():
                now = values[min(number, len(values) - 1)].item()
                if columns[name][c] != now:
                    what = f"is {columns[name][c]} in the store, and {now} now"
                    number_of = sentence_of(group, row)
                    yield Finding(group.path, name, what, sentences=(number_of, number_of), mend="columns")
        return Witness(tokens, Places.join(places))

    def _compare(self, each: _Chosen, alone: Alone) -> Iterator[Finding | Line]:
        found = compare(each.group, each.rows_C, alone, each.layers, str(self._numerics.get("dtype", alone.own_dtype)))
        wrong = confirmed(found, alone, each.sentences, lambda rows: self._noise(each.layers, rows))
        for row in wrong:
            number = sentence_of(each.group, row.sentence)
            where, shard = (number, number), int(each.shape.shards_of(np.array([row.sentence]))[0])
            what = f"are not those of its text: {row.figures}"
            yield Finding(each.group.path, "hidden_states", what, shard, where, row.layer, "rows")
        if wrong:
            # Which of the two is in the wrong place is not known: the next run writes both again.
            yield Finding(each.group.path, "text", "may not be that of the states", mend="columns")
        else:
            yield (
                f"{each.group.path}: {len(each.rows_C)} sentences computed again alone, relative error "
                f"{found.worst:.1e} at worst (bound {found.bound:.0e})"
            )

    def _noise(self, layers: Sequence[int], rows: Witness) -> NDArray[np.float64]:
        from drillcore.backends.transformers.plain import plain_model, suspects_noise

        with plain_model(self._source, self._extract, layers) as loaded:
            return suspects_noise(loaded, layers, rows.tokens, rows.places)
