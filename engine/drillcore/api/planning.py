"""What a job will cost: sentences, tokens, bytes, and the time of each stage, before anything is written."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

from drillcore.api.calibration import Load, timed_kind
from drillcore.api.estimates import Estimate, count_nodes, estimates_of, time_model
from drillcore.api.given import AnyPath
from drillcore.api.job import Job, asked_job
from drillcore.api.progress import listener
from drillcore.api.streaming import streaming_notes
from drillcore.backends.device import host_hardware
from drillcore.errors import InputError
from drillcore.job.groups import allow_sizes
from drillcore.runtime.costs import Piece
from drillcore.runtime.manifest import read_manifest
from drillcore.runtime.outlook import Outlook, group_size, look
from drillcore.runtime.preflight import Input, Inputs, check_job
from drillcore.runtime.rates import FROM_RUN, SCALED_MODEL, SCALED_SIZE, Rates, Seen, add, joined
from drillcore.runtime.stages import ALL_STAGES
from drillcore.store.places.location import Location
from drillcore.system.columns import align_columns, size_words
from drillcore.system.progress import ProgressListener, telling
from drillcore.system.visible import visible

HEADER = ("model", "dataset", "rows", "tokens", "nodes", "shared", "padding", "raw", "on disk", "time")
# Bytes of a row and layer: two pairs of coordinates and ten neighbours, a column of next tokens, and in the cache a
# k-NN graph.
RESULTS, NEXT_TOKENS, NEIGHBOURS = 56, 12, 120


@dataclass(frozen=True)
class StageTime:
    """The time of a stage. seconds: None where it is not known. source: where it is known from, in words.

    is_done: whether nothing is left to do. done: of `groups`, how many are up to date.
    """

    stage: str
    seconds: float | None
    source: str
    is_done: bool
    done: int
    groups: int


@dataclass(frozen=True, repr=False)
class Plan:
    """What a job will cost on this machine.

    store: its address. groups: an estimate of each model and dataset. stages: the time of each, in the order of a run.
    peak_disk_bytes: of the store with its results, and of what the cache holds of it, at their largest. notes: what a
    reader of the times must know.
    """

    store: str
    groups: tuple[Estimate, ...]
    stages: tuple[StageTime, ...]
    peak_disk_bytes: int
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float | None:
        """Seconds of all stages; None where that of one is not known."""
        known = [stage.seconds for stage in self.stages if stage.seconds is not None]
        return sum(known) if len(known) == len(self.stages) else None

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {
            "store": self.store,
            "groups": [{**asdict(e), "example": list(e.example)} for e in self.groups],
            "stages": {s.stage: {k: v for k, v in asdict(s).items() if k != "stage"} for s in self.stages},
            "seconds": self.seconds,
            "peak_disk_bytes": self.peak_disk_bytes,
            "notes": list(self.notes),
        }

    def __repr__(self) -> str:
        return visible("\n".join(self.lines()))

    def lines(self) -> Iterator[str]:
        """As the terminal shows it: an example of each dataset, the groups, the stages, the notes."""
        for estimate in self.groups:
            yield from estimate.example
        yield from align_columns([HEADER, *map(_group_cells, self.groups)])
        yield ""
        yield from align_columns(self._stage_rows())
        yield f"disk: up to {size_words(self.peak_disk_bytes)} in {self.store} and the cache"
        yield from self.notes

    def _stage_rows(self) -> list[tuple[str, ...]]:
        rows = [("stage", "time", "done", "known from"), *map(_stage_cells, self.stages)]
        return [*rows, ("all stages", _time(self.seconds), "", "")]

    def _repr_html_(self) -> str:
        said = ["\n".join(e.example) for e in self.groups if e.example]
        examples = "".join(f"<pre>{html.escape(visible(lines))}</pre>" for lines in said)
        tables = [_html_table([HEADER, *map(_group_cells, self.groups)]), _html_table(self._stage_rows())]
        disk = f"disk: up to {size_words(self.peak_disk_bytes)} in {self.store} and the cache"
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in (disk, *self.notes))
        return f"<div>{examples}{''.join(tables)}{notes}</div>"


def plan(
    job: Job | AnyPath | Mapping[str, Any],
    *,
    set: Sequence[str] = (),
    store: AnyPath | None = None,
    limit: int | None = None,
    calibrate: bool = True,
    progress: bool | ProgressListener | None = None,
) -> Plan:
    """Estimate what a job will cost on this machine. Writes nothing but the cache.

    job, set, store, limit, progress: as for `run`. calibrate: time what no earlier run of the machine tells, by loading
    models and working on random states for a few seconds each; without it nothing is loaded, no time is estimated, and
    packs are counted as on a CPU. What the store holds already costs nothing. Raises what a run raises where the job or
    its inputs are wrong.

    >>> planned = drillcore.plan("job.yaml", store="another.zarr", calibrate=False)
    >>> [(group.dataset, group.num_rows) for group in planned.groups], planned.seconds
    ([('sentences', 12)], None)
    """
    loaded, heard = asked_job(job, set, store, limit).loaded, listener(progress)
    with telling(heard.say):
        # What it would cost is asked for here: nothing is too large.
        inputs = check_job(loaded.model_copy(update={"job": allow_sizes(loaded.job)}), heard)
        return _Planner(inputs, calibrate, heard).plan()


class _Planner:
    """One plan under way."""

    def __init__(self, inputs: Inputs, calibrate: bool, listener: ProgressListener) -> None:
        self._inputs, self._calibrate, self._listener = inputs, calibrate, listener
        self._hardware = host_hardware(inputs.loaded.job.extract)
        self._rates = Rates.read() if calibrate else Rates([])
        self._load = Load.now() if calibrate else Load()
        self._seen = list[Seen]()
        self._nodes = cache(lambda path: count_nodes(self._sets[path]))
        self._sets = {sets[0].path: sets for name in inputs.sources for sets in inputs.sentences_of(name)}

    def plan(self) -> Plan:
        inputs = self._inputs
        loaded = inputs.loaded
        location = Location(loaded.store)
        location.check()
        folder = location.beside(None, loaded.base)
        last = read_manifest(folder / "manifest.json")
        outlook = look(inputs, location, folder, last, self._hardware, self._nodes_of, ALL_STAGES)
        groups = [e for name in inputs.sources for e in self._groups(name, outlook)]
        groups = [_with_shards(e, outlook) for e in groups]
        if self._calibrate:
            self._time_kinds(outlook)
        stages = tuple(self._stage(stage, outlook) for stage in ALL_STAGES)
        notes = [*streaming_notes(inputs, groups), *faster_in_bfloat16(groups)]
        busy = self._load.words if self._seen else ""
        if busy:
            notes.append(busy)
        else:
            # What was timed beside other programs would mislead later plans.
            add(self._seen)
        if loaded.job.run.executor != "local":
            notes.append(f"times are those of this machine alone; the job runs on {loaded.job.run.executor}")
        return Plan(loaded.store, tuple(groups), stages, self._peak(groups), tuple(notes))

    def _nodes_of(self, sets: Sequence[Input]) -> int:
        return int(self._nodes(sets[0].path)[0])

    def _groups(self, name: str, outlook: Outlook) -> Iterator[Estimate]:
        """Estimates of a model's groups; it is loaded where something is to be extracted that no run has told of."""
        paths = [sets[0].path for sets in self._inputs.sentences_of(name)]
        counts = [self._nodes(path) for path in paths]
        pieces = [p for p in outlook.of("extract") if p.group == name]
        unknown = [None] * len(paths)
        if not pieces or not self._calibrate:
            seconds = [0.0 if self._calibrate else None] * len(paths)
            yield from estimates_of(self._inputs, name, counts, seconds, "float32")
            return
        forward = next(p for p in pieces if p.kind == "forward")
        if all((found := self._rates.find(p)) and found.source in ("", FROM_RUN) for p in pieces):
            whole = sum(nodes for nodes, _ in counts)
            spent = [self._rates.find(replace(forward, work=forward.work * n / max(1, whole))) for n, _ in counts]
            seconds = [None if s is None else s.seconds for s in spent]
            yield from estimates_of(self._inputs, name, counts, seconds, "float32")
            return
        timed, rounded = time_model(self._inputs, name, forward, self._load, self._listener)
        self._add(timed.seen)
        found_in = estimates_of(self._inputs, name, timed.counts, timed.seconds, timed.dtype)
        brief = dict(zip((path.partition("/")[2] for path in paths), rounded or unknown, strict=True))
        for estimate in found_in:
            yield estimate if estimate.within else replace(estimate, bfloat16_seconds=brief[estimate.dataset])

    def _time_kinds(self, outlook: Outlook) -> None:
        """Time each kind of work of the later stages of which nothing is known."""
        pairs = {p.path: p for p in self._inputs.pairs}
        for piece in joined(p for p in outlook.pieces if p.stage != "extract"):
            if not self._is_unsure(piece):
                continue
            self._listener.say(f"{piece.stage}: timing a small part of it")
            pair = pairs[piece.group.split(" + ")[0]]
            vocabulary = self._inputs.sources[pair.model.group].facts.vocab_size
            size = group_size(self._inputs, pair)
            try:
                self._add([timed_kind(piece, size, self._inputs.loaded.job, vocabulary, self._load)])
            except (ImportError, InputError) as error:
                self._listener.say(f"{piece.stage}: not timed: {error}")

    def _is_unsure(self, piece: Piece) -> bool:
        """Whether a piece has to be timed: nothing of about its size is known."""
        found = self._rates.find(piece)
        return found is None or found.source in (SCALED_SIZE, SCALED_MODEL)

    def _add(self, seen: Sequence[Seen]) -> None:
        self._seen += seen
        self._rates = self._rates.with_new(seen)

    def _stage(self, stage: str, outlook: Outlook) -> StageTime:
        pieces = outlook.of(stage)
        found = self._rates.of_all(pieces)
        groups, done = len(self._inputs.pairs), len(outlook.done.get(stage, ()))
        if found is None:
            return StageTime(stage, None, "", False, done, groups)
        return StageTime(stage, found.seconds, found.source, not pieces, done, groups)

    def _peak(self, groups: Sequence[Estimate]) -> int:
        places = sum(RESULTS * p.num_rows * len(self._inputs.layers_of(p)) for p in self._inputs.pairs)
        follow = [p for p in self._inputs.pairs if p.expected is not None]
        places += sum(NEXT_TOKENS * p.num_rows * len(self._inputs.layers_of(p)) for p in follow)
        graphs = max(NEIGHBOURS * p.num_rows * len(self._inputs.layers_of(p)) for p in self._inputs.pairs)
        return sum(e.disk_bytes for e in groups) + places + graphs


def faster_in_bfloat16(estimates: Sequence[Estimate]) -> Iterator[str]:
    """A line for each model that takes less time in bfloat16."""
    for model in dict.fromkeys(e.model for e in estimates):
        both = [(e.seconds, e.bfloat16_seconds) for e in estimates if e.model == model]
        exact, rounded = sum(s or 0.0 for s, _ in both), sum(b or 0.0 for _, b in both)
        if rounded and rounded < exact:
            yield (
                f"{model}: {rounded:,.0f} s in bfloat16, {exact / rounded:.1f} times as fast (extract.dtype: bfloat16; "
                "states are rounded to 8 bits, those of float32 are exact)"
            )


def _with_shards(estimate: Estimate, outlook: Outlook) -> Estimate:
    """The estimate, with how many shards the group has, and how many are there."""
    kept, shards = outlook.kept.get(f"{estimate.model}/{estimate.dataset}", (0, 0))
    return replace(estimate, kept=kept, shards=shards)


def _group_cells(e: Estimate) -> tuple[str, ...]:
    shared = f"{1 - e.num_nodes / max(1, e.num_tokens):.0%}"
    padding = f"{e.num_padding / max(1, e.num_nodes + e.num_padding):.1%}"
    counts = (f"{e.num_rows:,}", f"{e.num_tokens:,}", f"{e.num_nodes:,}", shared, padding)
    spent = "not timed" if e.seconds is None else f"{e.seconds:,.0f} s"
    if e.within:
        counts, spent = (counts[0], "", "", "", ""), f"with {e.within}"
    if e.is_done:
        spent = f"{spent}, done" if e.within else "done"
    elif e.kept:
        spent += f", {e.kept:,} of {e.shards:,} shards done"
    return (e.model, e.dataset, *counts, size_words(e.raw_bytes), size_words(e.disk_bytes), spent)


def _stage_cells(s: StageTime) -> tuple[str, ...]:
    if s.is_done:
        return (s.stage, "nothing to do", "", "")
    done = f"{s.done:,} of {s.groups:,} groups" if s.done else ""
    return (s.stage, _time(s.seconds), done, s.source)


def _time(seconds: float | None) -> str:
    """Seconds as a reader takes them in.

    >>> _time(7.2), _time(100), _time(8000), _time(None)
    ('7 s', '1 min 40 s', '2 h 13 min', 'not timed')
    """
    if seconds is None:
        return "not timed"
    whole = round(seconds)
    if whole < 60:
        return f"{max(1, whole)} s" if seconds > 0 else "0 s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"


def _html_table(rows: Sequence[Sequence[str]]) -> str:
    header, *others = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows)
    header = header.replace("<td>", "<th>").replace("</td>", "</th>")
    return f"<table><tr>{header}</tr>{''.join(f'<tr>{cells}</tr>' for cells in others)}</table>"
