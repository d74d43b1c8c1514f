"""The measure stage: how well each layer separates the labels, with intervals, nulls and controls.

Shape legend: N sentences, L layers (as stored), H hidden size.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from drillcore.job.groups import Group
from drillcore.job.stages import Measure
from drillcore.measures import BOUNDS, CONTROLS, HELD_OUT, OF_NUMBERS, PRIMARY, ROWS, chosen
from drillcore.measures.cka import cka_rows, layer_cka
from drillcore.measures.controls import controls
from drillcore.measures.draws import Draws
from drillcore.measures.fitted import fitted_probe
from drillcore.measures.intervals import Bounds
from drillcore.measures.layer import LayerStates
from drillcore.measures.probe import Probe, without_scatter
from drillcore.measures.separation import Separation, combine, measure_layer
from drillcore.runtime.context import Context
from drillcore.runtime.failures import Failures, check_whole
from drillcore.runtime.results import Measured, p_in_words, read_separation
from drillcore.runtime.splits import straddling_in_words
from drillcore.runtime.stages.decisions import lacks_decisions, write_decisions
from drillcore.runtime.stages.graphs import LayerGraphs, graphs_of, measured_graphs, memory_needed
from drillcore.runtime.stages.labelled import draws_of, groups_of, labelled_rows, of_rows
from drillcore.runtime.stages.nearest import store_nearest
from drillcore.runtime.stages.tested_on import Tested, column_there, measure_tested, other_of, tested_of
from drillcore.runtime.wanted import is_up_to_date, wanted_of
from drillcore.store.arrays import of_label, split_name
from drillcore.store.attributes import attributes_of
from drillcore.store.freshness import MOST_PROBED, ResultInputs, inputs_of, old_digest, stale, tested_inputs
from drillcore.store.group import GroupWriter
from drillcore.store.layout import array_of, read_array
from drillcore.store.reader import column, num_rows, open_dataset, read_layer
from drillcore.system.progress import counted

PROBE_ARRAYS = ("probe_label", "probe_weight", "probe_offset")
# The one coordinate of a probe that predicts a number, and why other measures have none.
NUMBER, OF_CLASSES = "number", "labels are numbers"
# Of a further label all but `layer_cka`, which no label decides.
ARRAYS_MADE = ("metric", "bound", "layer_cka", "separation")


@dataclass(frozen=True)
class MeasureTask:
    """One layer of a dataset, for an executor. rows_M: the sentences that are measured, None for all.

    tested: the sentences of another dataset that the probe is tested on, None where there is none.
    """

    store: str
    group: str
    slot: int
    rows_M: NDArray[np.int64] | None
    settings: Measure
    draws: Draws
    graphs: LayerGraphs | None
    tested: Tested | None = None

    @property
    def probed(self) -> Draws:
        """The draws of the probe: of both datasets where it is tested on another one."""
        return self.draws if self.tested is None else self.tested.draws

    @property
    def num_tested(self) -> int:
        """Sentences of another dataset that are read with each layer."""
        return 0 if self.tested is None else len(self.tested.draws.tested.codes_U)

    def column(self, group: zarr.Group, name: str) -> NDArray[Any] | None:
        """A coordinate of the sentences that the probe learns from and is tested on."""
        values_N = column(group, name)
        own_M = None if values_N is None else of_rows(values_N, self.rows_M)
        return own_M if self.tested is None else self.tested.with_column(own_M, self.store, name)


def measure_one(task: MeasureTask) -> dict[str, Bounds]:
    """Read a layer and measure it."""
    group = open_dataset(task.store, task.group)
    states_NH = read_layer(group, task.slot)
    graph = None if task.graphs is None else task.graphs.make(states_NH, task.slot)
    states_MH = of_rows(states_NH, task.rows_M)
    if task.tested is None:
        return measure_layer(states_MH, task.settings, task.draws, graph)
    both_KH = task.tested.with_states(states_MH, task.store, task.slot)
    return measure_tested(states_MH, both_KH, task.settings, task.draws, task.tested, graph)


def decide_one(task: MeasureTask) -> NDArray[np.int16] | None:
    """Read a layer and let its probe decide about each tested sentence; None where it cannot learn."""
    states_NH = read_layer(open_dataset(task.store, task.group), task.slot)
    layer = LayerStates(of_rows(states_NH, task.rows_M), task.settings, task.draws)
    codes_U = task.draws.codes_U.astype(np.int16)
    cannot = without_scatter(layer.raw_UH, task.draws)
    return None if cannot else Probe(layer.learned_from_UH, task.draws).decided(codes_U[None])[0]


def fit_one(task: MeasureTask) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Read a layer and fit its probe."""
    states_NH = read_layer(open_dataset(task.store, task.group), task.slot)
    states_MH = of_rows(states_NH, task.rows_M)
    if task.tested is not None:
        states_MH = task.tested.with_states(states_MH, task.store, task.slot)
    return fitted_probe(states_MH, task.settings, task.probed)


def measure(context: Context) -> None:
    """Measure every dataset that changed since it was last measured.

    Raises PartFailed, once all others are measured, where some cannot be.
    """
    started = time.perf_counter()
    job, failures = context.job, Failures("measure")
    for model in job.models:
        for dataset in job.measured_groups:
            writer = context.store.dataset(model.group, dataset.name)
            with failures.of(writer.group.path):
                check_whole(writer)
                _drop_left(context, dataset, writer)
                # First: the measures read the k-NN graphs that it makes.
                store_nearest(context, writer)
                for label in ("", *dataset.more_labels):
                    _measure_dataset(context, dataset, writer, label)
                if graphs_of(job, writer) is None:
                    measured_graphs(job, writer).forget(int(array_of(writer.group, "hidden_states").shape[1]))
    failures.raise_if_any()
    context.manifest.record("stages", "measure", wall_seconds=round(time.perf_counter() - started, 3))


def _drop_left(context: Context, dataset: Group, writer: GroupWriter) -> None:
    """Remove the measures of labels that the dataset no longer has."""
    of = {name: split_name(name)[1] for name in attributes_of(writer.group).get("results", {})}
    left = [name for name, label in of.items() if label and label not in dataset.more_labels]
    if left:
        writer.drop_results(left)
        labels = ", ".join(dict.fromkeys(of[name] for name in left))
        context.listener.say(f"{writer.group.path}: removed measures of labels beside the main one that left: {labels}")


def _measure_dataset(context: Context, dataset: Group, writer: GroupWriter, label: str = "") -> None:
    """Measure a dataset by a further label; "" is the main one."""
    job, path = context.job, writer.group.path
    settings, called = job.measure, _called(path, dataset, label)
    made = tuple(of_label(name, label) for name in ARRAYS_MADE if not label or name != "layer_cka")
    split, other = dataset.split_field, other_of(context, dataset, path.split("/")[0])
    read = (label or "label", "group", *(() if split is None else (split,)))
    there = column_there(job, dataset, label)
    tested_inputs_of = {} if other is None else {"test": tested_inputs(other.group, there)}
    inputs = inputs_of([writer.group], "measure", read, wanted_of(job, dataset)["measure"], **tested_inputs_of)
    # No older version knew a split.
    old = old_digest([writer.group], settings) if dataset.split is None and not label else ""
    is_measured = is_up_to_date(writer, made, inputs, old)
    if is_measured:
        context.listener.say(f"{called}: measures are up to date")
        if not (_lacks_probe(writer, inputs, label) or lacks_decisions(writer, inputs, label)):
            return
    num_sentences, (_, num_layers, hidden_size) = num_rows(writer.group), array_of(writer.group, "hidden_states").shape
    drawn = _drawn(context, writer, split, other, (label or "label", there))
    if is_measured:
        _complete(context, writer, [replace(drawn, slot=k) for k in range(num_layers)], inputs, label)
        return
    graphs = None if _needs_no_graph(drawn) else measured_graphs(job, writer)
    tasks = [replace(drawn, slot=k, graphs=graphs) for k in range(num_layers)]
    context.listener.start(f"measure {called}", num_layers, "layers")
    started = time.perf_counter()
    bounds_L: list[dict[str, Bounds]] = [{} for _ in tasks]
    needed = memory_needed(num_sentences + drawn.num_tested, hidden_size)
    for position, bounds in context.executor.map(measure_one, tasks, memory=needed):
        bounds_L[position] = bounds
        context.listener.advance(1)
    separation = combine(bounds_L)
    facts = _facts(writer, drawn, separation)
    values: dict[str, NDArray[Any]] = {
        of_label("metric", label): np.array(separation.metrics),
        "bound": np.array(BOUNDS),
        of_label("separation", label): separation.values_LMB,
    }
    more: dict[str, dict[str, Any]] = {of_label("separation", label): facts}
    if not label:
        rows = cka_rows(num_sentences, num_layers, hidden_size, settings)
        values["layer_cka"] = layer_cka(lambda k: read_layer(writer.group, k)[rows], num_layers)
        more["layer_cka"] = {"sentences": len(rows)}
    recorded = {name: {"inputs": inputs.record(), **own} for name, own in more.items()}
    writer.write_results(inputs.digest, {name: values[name] for name in made}, recorded)
    decided_LT = [bounds[PRIMARY].decided_T if PRIMARY in bounds else None for bounds in bounds_L]
    write_decisions(writer, inputs, label, drawn.draws, drawn.rows_M, decided_LT)
    if _lacks_probe(writer, inputs, label):
        _fit_probes(context, writer, tasks, inputs, label)
    elif stale(writer.group, of_label(PROBE_ARRAYS[1], label)):
        # Of earlier settings, which had a probe.
        writer.drop_results(_probe_arrays(label))
    context.manifest.record("measures", path, *(["by_label", label] if label else []), **facts)
    context.manifest.did("measure", path)
    seconds, best = time.perf_counter() - started, _best_line(read_separation(writer.group, label), drawn)
    context.listener.finish(f"{called}: {counted(num_layers, 'layers')} measured in {seconds:.1f} s{best}")
    for note in facts["notes"]:
        context.listener.warn(f"{called}: {note}")


def _needs_no_graph(task: MeasureTask) -> bool:
    """Whether no measure uses the k-NN graph of all sentences, which the projection uses too.

    It is not that of the labelled ones. Numbers need none. Centring moves no neighbour; z-scores do.
    """
    draws, settings = task.draws, task.settings
    needs_none = draws.skipped or draws.values_U is not None or task.rows_M is not None
    return bool(needs_none or settings.standardise == "zscore" or "purity" not in chosen(settings.metrics))


def _called(path: str, dataset: Group, label: str) -> str:
    """A group in lines, with the label where it has several."""
    return f"{path}, label {label or dataset.label_field}" if dataset.more_labels else path


def _drawn(
    context: Context, writer: GroupWriter, split: str | None, other: GroupWriter | None, names: tuple[str, str]
) -> MeasureTask:
    """The task of the first layer: which sentences are measured, and what is drawn of them.

    names: the columns of the labels, here and in the other group.
    """
    group, settings = writer.group, context.job.measure
    rows_M = labelled_rows(column(group, names[0]))
    labels, groups, sides = (
        None if values is None else of_rows(values, rows_M)
        for values in (column(group, names[0]), groups_of(group), None if split is None else column(group, split))
    )
    is_test_M = None if sides is None else np.asarray(sides == "test", bool)
    draws = draws_of(labels, groups, settings, num_rows(group) if rows_M is None else len(rows_M), is_test_M)
    tested = None if other is None else tested_of(group, rows_M, other.group, settings, draws, names)
    return MeasureTask(context.store.location.address, group.path, 0, rows_M, settings, draws, None, tested)


def _probe_arrays(label: str) -> tuple[str, ...]:
    return tuple(of_label(name, label) for name in PROBE_ARRAYS)


def _lacks_probe(writer: GroupWriter, inputs: ResultInputs, label: str) -> bool:
    """Whether a probe was measured that could be stored and is not."""
    measured = read_separation(writer.group, label)
    if measured is None or measured.of(measured.primary) is None or measured.num_labels > MOST_PROBED:
        return False
    return not is_up_to_date(writer, _probe_arrays(label), inputs, "")


def _complete(
    context: Context, writer: GroupWriter, tasks: Sequence[MeasureTask], inputs: ResultInputs, label: str
) -> None:
    """Store beside measures what an older version did not store: probes, and what they decide."""
    if _lacks_probe(writer, inputs, label):
        _fit_probes(context, writer, tasks, inputs, label)
    if lacks_decisions(writer, inputs, label):
        needed = memory_needed(num_rows(writer.group), array_of(writer.group, "hidden_states").shape[-1])
        decided = dict(context.executor.map(decide_one, tasks, memory=needed))
        decided_LT = [decided[k] for k in range(len(tasks))]
        write_decisions(writer, inputs, label, tasks[0].draws, tasks[0].rows_M, decided_LT)


def _fit_probes(
    context: Context, writer: GroupWriter, tasks: Sequence[MeasureTask], inputs: ResultInputs, label: str
) -> None:
    """Store the probe of each layer, for states as they are stored."""
    num_sentences, (_, num_layers, hidden_size) = num_rows(writer.group), array_of(writer.group, "hidden_states").shape
    draws, settings = tasks[0].probed, tasks[0].settings
    names = [str(each) for each in draws.labels] if draws.values_U is None else [NUMBER]
    weight_LCH = np.full((num_layers, len(names), hidden_size), np.nan, np.float32)
    offset_LC = np.full((num_layers, len(names)), np.nan, np.float32)
    needed = memory_needed(num_sentences + tasks[0].num_tested, hidden_size)
    for position, (weight_CH, offset_C) in context.executor.map(fit_one, tasks, memory=needed):
        weight_LCH[position], offset_LC[position] = weight_CH, offset_C
    learned = len(draws.codes_U) if draws.is_test_U is None else int((~draws.is_test_U).sum())
    facts = {"inputs": inputs.record(), "standardise": settings.standardise, "sentences": learned}
    values = (np.array(names), weight_LCH, offset_LC)
    made = _probe_arrays(label)
    writer.write_results(inputs.digest, dict(zip(made, values, strict=True)), dict.fromkeys(made[1:], facts))


def _facts(writer: GroupWriter, task: MeasureTask, separation: Separation) -> dict[str, Any]:
    """What a reader of the measures must know: settings, samples, what was skipped, and the controls."""
    settings, draws, rows_M = task.settings, task.probed, task.rows_M
    skipped = _skipped(separation, [str(n) for n in read_array(writer.group, "layer_name")])
    facts: dict[str, Any] = {
        "primary": PRIMARY if draws.values_U is None else OF_NUMBERS,
        "standardise": settings.standardise,
        "folds": settings.folds,
        "seed": settings.seed,
        "permutations": draws.num_permutations,
        "sampled": len(draws.sample_S),
        "labels": [str(v) for v in draws.labels],
        "notes": list(draws.notes),
        "skipped": skipped,
    }
    if draws.values_U is not None:
        others = [name for name in chosen(settings.metrics) if name != PRIMARY]
        facts["skipped"] = {**dict.fromkeys(chosen(settings.metrics), OF_CLASSES), **skipped}
        facts["notes"] = [f"{OF_CLASSES}: the probe is a regression" + _without(others), *facts["notes"]]
    if draws.is_test_U is not None:
        facts |= _facts_of_split(draws, facts["notes"])
    if task.tested is not None:
        facts["split"] = {**facts["split"], "dataset": task.tested.dataset}
    if rows_M is not None:
        facts["unlabelled"] = num_rows(writer.group) - len(rows_M)
        facts["notes"] = [f"{facts['unlabelled']:,} sentences without a label are left out", *facts["notes"]]
    # The token whose states are measured.
    token = "token_id" if "token_id" in writer.group else "last_token_id"
    last, length, texts = (task.column(writer.group, name) for name in (token, "n_tokens", "text"))
    if not draws.skipped and last is not None and length is not None and texts is not None:
        measured = controls([str(t) for t in texts], last, length, settings, draws)
        facts["controls"] = {
            name: dict(zip(BOUNDS, (_number(v) for v in control.values_LMB[0, 0]), strict=True))
            for name, control in measured.items()
        }
        facts["notes"] = [*facts["notes"], *_unbeaten(separation, measured)]
    if "row_size" in writer.group:
        sentences = array_of(writer.group, "row_size").shape[0]
        together = f"the {num_rows(writer.group):,} rows of {sentences:,} sentences are measured together"
        facts["notes"] = [together, *(note.replace("sentences", "rows") for note in facts["notes"])]
    return facts


def _without(metrics: Sequence[str]) -> str:
    """The measures of classes that numbers do not have, as the end of a note."""
    compare = "compares classes and is" if len(metrics) == 1 else "compare classes and are"
    return f"; {', '.join(metrics)} {compare} not measured" if metrics else ""


def _facts_of_split(draws: Draws, notes: Sequence[str]) -> dict[str, Any]:
    """What the facts say of a split: its rows that count, and the label that `auroc` and the recall are of."""
    tested = len(draws.tested.codes_U)
    facts: dict[str, Any] = {"split": {"train": len(draws.codes_U) - tested, "test": tested}}
    if draws.straddling:
        facts["notes"] = [*notes, straddling_in_words(draws.straddling)]
    return {**facts, "positive": str(draws.labels[1])} if draws.num_labels == 2 else facts


def _unbeaten(separation: Separation, controls: Mapping[str, Separation]) -> list[str]:
    """A note where no layer's probe beats a control: what it found may be in the words alone."""
    metric = next((name for name in (PRIMARY, OF_NUMBERS) if name in separation.metrics), None)
    if metric is None:
        return []
    probe_L = separation.values_LMB[:, separation.metrics.index(metric), 0]
    best = np.max(probe_L, initial=-np.inf, where=np.isfinite(probe_L))
    values = {CONTROLS[name]: control.values_LMB[0, 0, 0] for name, control in controls.items()}
    unbeaten = [f"{title} ({value:.2f})" for title, value in values.items() if np.isfinite(best) and value >= best]
    if not unbeaten:
        return []
    return [f"no layer's probe ({best:.2f} at best) beats what needs no model: {', '.join(unbeaten)}"]


def _skipped(separation: Separation, layer_names: Sequence[str]) -> dict[str, str]:
    """Why each measure was skipped, by its name: with the layers, where others were measured."""
    reasons: dict[str, dict[str, list[str]]] = {}
    for (slot, metric), reason in separation.skipped.items():
        reasons.setdefault(metric, {}).setdefault(reason, []).append(layer_names[slot])
    return {
        metric: "; ".join(r if len(at) == len(layer_names) else f"{', '.join(at)}: {r}" for r, at in by_reason.items())
        for metric, by_reason in reasons.items()
    }


def _number(value: np.float32) -> float | None:
    """JSON has no NaN."""
    return float(value) if np.isfinite(value) else None


def _best_line(measured: Measured | None, task: MeasureTask) -> str:
    """The primary measure at its best layer, with its null, as the end of a line."""
    draws = task.probed
    if draws.skipped or measured is None or measured.primary not in measured.metrics:
        return f"; skipped: {draws.skipped}" if draws.skipped else ""
    best, missing = measured.best(measured.primary), measured.facts.get("skipped", {}).get(measured.primary, "")
    name = "linear probe" if measured.primary == PRIMARY else "R² of the linear probe"
    not_measured = f"; {name} not measured: {missing}" if missing else ""
    if best is None:
        return not_measured
    null = f", null up to {best.null_high:.2f} over all layers, p {p_in_words(best.p)}" if np.isfinite(best.p) else ""
    of_other = "" if task.tested is None else f" of {task.tested.dataset}"
    tested = "" if draws.is_test_U is None else f" on {len(draws.tested.codes_U):,} test rows{of_other}"
    interval = f"{tested} ({best.low:.2f} to {best.high:.2f})"
    values = [f"{CONTROLS.get(name, name)} {value:.2f}" for name, value in measured.controls().items()]
    controls = f"; without the model: {', '.join(values)}" if values else ""
    reasons = measured.facts.get("skipped", {})
    controls += "".join(f"; {ROWS[each].title} not measured: {reasons[each]}" for each in HELD_OUT if each in reasons)
    return f"; {name} best at {best.layer_name}: {best.value:.2f}{interval}{null}{not_measured}{controls}"
