"""What a run of a job has still to do, stage by stage, from the job's inputs and its store; only reads.

What is there and up to date is no work. How long the pieces take is said by `rates`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import zarr
from zarr.errors import GroupNotFoundError

from drillcore.backends.device import Hardware
from drillcore.errors import DamageError
from drillcore.job.groups import Group
from drillcore.projections import choose_projection
from drillcore.runtime import costs
from drillcore.runtime.costs import Piece, Size
from drillcore.runtime.preflight import Input, Inputs
from drillcore.runtime.rates import this_machine
from drillcore.runtime.stages.extract.pending import asked, request_of
from drillcore.runtime.stages.extract.standing import Asked, Standing, stand
from drillcore.runtime.stages.extract.together import pending_sentences
from drillcore.runtime.stages.graphs import memory_needed
from drillcore.runtime.wanted import together, wanted_of
from drillcore.store.arrays import of_label
from drillcore.store.attributes import attributes_of, read_attributes
from drillcore.store.freshness import stale
from drillcore.store.places.location import Location
from drillcore.store.reader import open_dataset
from drillcore.system.files import digest
from drillcore.system.machine import free_memory_bytes, num_cores
from drillcore.system.versions import versions

# Nodes to compute of some sets of sentences: a dataset and its branches.
CountNodes = Callable[[Sequence[Input]], int]
# What reading a store that is missing or damaged raises.
UNREAD = (GroupNotFoundError, FileNotFoundError, DamageError, ValueError, KeyError, TypeError)
# Sentences that are computed alone whatever the job: canaries, the longest one, the ends of a shard.
ALWAYS_ALONE, EACH_ALONE, ALONE_LENGTH = 4, 4, 16


@dataclass(frozen=True)
class Outlook:
    """What is left to do.

    pieces: of work, by stage. kept: of each group that is extracted, shards that stay, and all it needs. done: paths of
    the groups that a stage has nothing to do for, by stage.
    """

    pieces: tuple[Piece, ...]
    kept: Mapping[str, tuple[int, int]]
    done: Mapping[str, tuple[str, ...]]

    def of(self, stage: str) -> list[Piece]:
        """The pieces of a stage."""
        return [p for p in self.pieces if p.stage == stage]


def look(
    inputs: Inputs,
    location: Location,
    folder: Path,
    last: Mapping[str, Any],
    hardware: Hardware,
    nodes: CountNodes,
    stages: Sequence[str],
) -> Outlook:
    """What the given stages of a job have to do. folder: beside the store. last: the manifest of the last run."""
    standings = _standings(inputs, location, last, hardware)
    pieces, done = list[Piece](), dict[str, tuple[str, ...]]()
    if "extract" in stages:
        for name in inputs.sources:
            pieces += _extraction(inputs, name, hardware, nodes, standings[name])
    changed = (
        {p.path for p in inputs.pairs if not _is_whole(standings[p.model.group], p)} if "extract" in stages else {*()}
    )
    done["extract"] = tuple(p.path for p in inputs.pairs if _is_whole(standings[p.model.group], p))
    for stage, find in LATER.items():
        if stage in stages:
            found = find(inputs, partial(_is_fresh, inputs, location, changed))
            pieces += found
            working = {path for piece in found for path in piece.group.split(" + ")}
            done[stage] = tuple(p.path for p in inputs.pairs if p.path not in working)
    if "render" in stages and (pieces or not _is_drawn(inputs, folder, last)):
        pieces += _pictures(inputs)
        done["render"] = ()
    kept = {s.path: (s.num_kept, s.shape.num_shards) for each in standings.values() for s in each}
    return Outlook(tuple(pieces), kept, done)


def model_setting(inputs: Inputs, name: str, hardware: Hardware) -> tuple[str, str]:
    """What two models must share for their rates to be compared: here, and exactly."""
    extract = inputs.loaded.job.extract
    dtype = Asked(inputs, {}, hardware, {}, 1).dtype(inputs.of_model(name)[0])
    more = () if extract.weights == "resident" else (extract.weights,)
    setting = this_machine(
        hardware.device, hardware.threads, hardware.gpus, dtype, extract.backend, extract.layout, *more
    )
    return setting, digest(request_of(inputs, name, hardware, versions()))


def node_work(inputs: Inputs, name: str) -> float:
    """Work of one node of a model."""
    facts = inputs.sources[name].facts
    return 2e-11 * max(1, facts.num_parameters) + 2e-6 * facts.num_layers


def load_work(inputs: Inputs, name: str) -> float:
    """Work of loading a model and checking it."""
    return 5.0 + 5e-8 * inputs.sources[name].facts.num_parameters


def alone_work(inputs: Inputs, name: str, sentences: float, tokens: float) -> float:
    """Work of computing sentences one at a time."""
    return 3 * node_work(inputs, name) * (ALONE_LENGTH * sentences + tokens)


def group_size(inputs: Inputs, pair: Input, label: str = "label") -> Size:
    """What decides the cost of a group in the stages after extraction. label: the column of the labels."""
    hidden, layers = inputs.sources[pair.model.group].facts.hidden_size, len(inputs.layers_of(pair))
    rows, each = pair.num_rows, pair.num_rows / max(1, pair.rows.num_rows)
    if label not in pair.rows.columns:
        return Size(rows, rows, 0, layers, hidden)
    if pair.rows.holds_numbers(label):
        labels_N = pair.rows.slice(0, pair.rows.num_rows).column(label).to_numpy()
        return Size(rows, int(np.isfinite(labels_N).sum() * each), 1, layers, hidden, is_number=True)
    counted = pc.value_counts(pair.rows.slice(0, pair.rows.num_rows).column(label)).to_pylist()
    pair.rows.release()
    # A label that one sentence has is left out.
    known = [c["counts"] for c in counted if c["values"] not in ("", None) and c["counts"] > 1]
    return Size(rows, int(sum(known) * each), len(known), layers, hidden)


def _standings(
    inputs: Inputs, location: Location, last: Mapping[str, Any], hardware: Hardware
) -> dict[str, list[Standing]]:
    """How the groups of each model stand; none of them where there is no store."""
    if not location.is_s3 and not (location.path / "zarr.json").exists():
        return {name: [] for name in inputs.sources}
    store, earlier = location.open(read_only=True), last.get("versions", {})
    packages, found = versions(), dict[str, list[Standing]]()
    for name in inputs.sources:
        request = asked(inputs, name, read_attributes(store, name), hardware, packages, earlier)
        found[name] = [stand(request, pair, store) for pair in inputs.of_model(name)]
    return found


def _is_whole(standings: Sequence[Standing], pair: Input) -> bool:
    return any(s.path == pair.path and s.takes_nothing and s.num_kept == s.shape.num_shards for s in standings)


def _extraction(
    inputs: Inputs, name: str, hardware: Hardware, nodes: CountNodes, standings: Sequence[Standing]
) -> list[Piece]:
    """Loading, forward passes and audit of one model; nothing where all is committed."""
    pairs = inputs.of_model(name)
    if all(_is_whole(standings, pair) for pair in pairs):
        return []
    sets = inputs.sentences_of(name)
    sentences = sum(len(p.tokens) for each in sets for p in each)
    tokens = sum(len(p.tokens.ids_T) for each in sets for p in each)
    share = pending_sentences(standings) / max(1, sentences) if standings else 1.0
    setting, like = model_setting(inputs, name, hardware)
    piece = Piece("extract", "", 0.0, setting, like, name)
    computed = share * sum(nodes(each) for each in sets)
    found = [
        replace(piece, kind="load", work=load_work(inputs, name)),
        replace(piece, kind="forward", work=computed * node_work(inputs, name)),
    ]
    audit = inputs.loaded.job.run.audit
    if audit != 0:
        budget = max(0.02 * tokens, 2.5e9 / max(1, inputs.sources[name].facts.num_parameters))
        mean = tokens / max(1, sentences)
        seeded = min(32.0, budget / max(mean, 1)) * len(pairs) if audit == "auto" else audit * len(pairs)
        alone = ALWAYS_ALONE + min(seeded + EACH_ALONE * len(pairs), sentences)
        found.append(replace(piece, kind="alone", work=alone_work(inputs, name, alone, alone * mean)))
    return found


IsFresh = Callable[[Input, str, str], bool]


def _is_fresh(inputs: Inputs, location: Location, changed: set[str], pair: Input, stage: str, array: str) -> bool:
    """Whether a result is there and belongs to what stands beside it, which no extraction is about to change."""
    tested = f"{pair.model.group}/{pair.dataset.tested_group}"
    if pair.path in changed or (stage == "measure" and tested in changed):
        return False
    try:
        group: zarr.Group = open_dataset(location.address, pair.path)
        made = attributes_of(group).get("results", {})
        return array in made and array in group and not stale(group, array, wanted_of(inputs.loaded.job, pair.dataset))
    except UNREAD:
        return False


def _measuring(inputs: Inputs, is_fresh: IsFresh) -> list[Piece]:
    settings, found = inputs.loaded.job.measure, list[Piece]()
    for pair in _measured(inputs):
        if not is_fresh(pair, "nearest", "nearest"):
            size = group_size(inputs, pair)
            work, setting = _spread(costs.group_nearest(size, settings), size.rows, size)
            found.append(Piece("measure", "measure", work, setting, group=pair.path))
        for label in ("", *pair.dataset.more_labels):
            if not is_fresh(pair, "measure", of_label("separation", label)):
                size = group_size(inputs, pair, label or "label")
                work, setting = _spread(costs.group_measured(size, settings), size.rows, size)
                found.append(Piece("measure", "measure", work, setting, group=pair.path))
    return [_start(costs.MEASURE_STARTS, found), *found] if found else []


def _projecting(inputs: Inputs, is_fresh: IsFresh) -> list[Piece]:
    job = inputs.loaded.job
    settings, found, starts = job.project, list[Piece](), 0.0
    pairs, seen = {p.path: p for p in _measured(inputs)}, set[str]()
    for pair in pairs.values():
        groups: Sequence[Group] = [pair.dataset] if settings.fit == "each" else together(job, pair.dataset)
        unit = [pairs[f"{pair.model.group}/{g.name}"] for g in groups]
        name = " + ".join(p.path for p in unit)
        if name in seen or all(is_fresh(p, "project", settings.method) for p in unit):
            continue
        seen.add(name)
        size, rows = group_size(inputs, pair), sum(p.num_rows for p in unit)
        has_graph = not is_fresh(pair, "nearest", "nearest")
        has_graph |= costs.has_graph_for_purity(size, job.measure) and not is_fresh(pair, "measure", "separation")
        shares = len(unit) == 1 and has_graph and _shares_graphs(inputs)
        layer = costs.layer_projected(rows, size.hidden, settings, with_graph=not shares)
        start = costs.starts_projecting(rows, settings, with_graph=not shares)
        starts = max(starts, start)
        work, setting = _spread(layer * size.layers, rows, size, choose_projection(settings, rows)[0])
        found.append(Piece("project", "project", work, setting, group=name))
    return [_start(starts, found), *found] if found else []


def _predicting(inputs: Inputs, is_fresh: IsFresh) -> list[Piece]:
    found, loaded = list[Piece](), dict[str, float]()
    for pair in inputs.pairs:
        if pair.expected is None and pair.candidates is None:
            continue
        name, work = pair.model.group, 0.0
        facts, size = inputs.sources[name].facts, group_size(inputs, pair)
        if pair.expected is not None and not is_fresh(pair, "predict", "prediction"):
            work += costs.group_predicted(size, facts.vocab_size)
        if pair.candidates is not None and not is_fresh(pair, "candidates", "candidate_logprob"):
            after = len(pair.candidates.ids.ids_T)
            work += len(pair.tokens.ids_T) * node_work(inputs, name)
            work += after * (
                node_work(inputs, name) + costs.group_predicted(Size(1, 1, 0, 1, size.hidden), facts.vocab_size)
            )
            loaded[name] = load_work(inputs, name)
        if work:
            found.append(Piece("predict", "predict", work, this_machine(), group=pair.path))
    return [_start(costs.PREDICT_STARTS + sum(loaded.values()), found), *found] if found else []


LATER: dict[str, Callable[[Inputs, IsFresh], list[Piece]]] = {
    "measure": _measuring,
    "predict": _predicting,
    "project": _projecting,
}


def _pictures(inputs: Inputs) -> list[Piece]:
    job = inputs.loaded.job
    measured = _measured(inputs)
    grids = 1 + (len(job.measured_groups) > 1) + (len(job.models) > 1)
    found = [
        Piece(
            "render",
            "render",
            costs.group_rendered(group_size(inputs, pair), job.render, grids=grids),
            this_machine(),
            group=pair.path,
        )
        for pair in measured
    ]
    return [_start(costs.RENDER_STARTS, found), *found] if found else []


def _is_drawn(inputs: Inputs, folder: Path, last: Mapping[str, Any]) -> bool:
    """Whether the last run drew this job's pictures: it ended well, with the same job."""
    job = inputs.loaded.job.model_dump(mode="json", by_alias=True)
    files = (folder / "report.html", folder / "pictures" / "made_from.json")
    return last.get("status") == "done" and last.get("job") == job and all(f.is_file() for f in files)


def _measured(inputs: Inputs) -> list[Input]:
    return [p for p in inputs.pairs if p.dataset.position.is_measured]


def _shares_graphs(inputs: Inputs) -> bool:
    """Whether `measure` leaves the k-NN graphs that `project` needs; see `stages.graphs`."""
    measure, project = inputs.loaded.job.measure, inputs.loaded.job.project
    return project.method == "umap" and project.metric == "euclidean" and project.seed == measure.seed


def _spread(work: float, rows: int, size: Size, *more: str) -> tuple[float, str]:
    """Work over the processes that share the layers of a large group, and what it is compared with."""
    needed = memory_needed(rows, size.hidden)
    processes = max(1, min(num_cores(), size.layers, free_memory_bytes() // needed)) if needed else 1
    return work / processes, this_machine("one thread" if processes > 1 else "all threads", *more)


def _start(work: float, found: Sequence[Piece]) -> Piece:
    """What a stage costs before its first group."""
    return replace(found[0], work=work, group="")
