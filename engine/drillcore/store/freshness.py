"""Whether a result belongs to what it stands beside: the states, labels and settings that its group now has.

Every result records its inputs. A group records what its job now asks of each stage (`wanted`), so that a store alone
tells; results of older versions recorded one digest of everything, which is made again here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import zarr

from drillcore.errors import DamageError
from drillcore.job.stages import Measure, Project
from drillcore.store.arrays import ARRAYS, PROJECTIONS, of_label, spec_of, split_name
from drillcore.store.attributes import attributes_of
from drillcore.store.layout import WITHDRAWN, read_array
from drillcore.system.files import ValuesDigest, digest

WANTED = "wanted"
# Of what is wanted: the fields of the labels, the main one first, where a dataset has several.
LABELS = "labels"
# Labels at most of a probe that is stored.
MOST_PROBED = 20
# Settings that the digests of older versions held whatever their value.
OLD_SETTINGS = frozenset(
    {"metrics", "standardise", "folds", "permutations", "sample", "seed", "method", "backend", "n_neighbors"}
    | {"min_dist", "metric", "n_epochs", "fit", "align"}
)


@dataclass(frozen=True)
class ResultInputs:
    """What a result was made from.

    stage: measure, project, predict or candidates. states: digest of the states of its group, or of all that were
    projected together. columns: digest of each coordinate that was read, None where there was none. settings: those
    that differ from their default. more: what follows from these and the code.
    """

    stage: str
    states: str
    columns: dict[str, str | None]
    settings: dict[str, Any]
    more: dict[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    @property
    def digest(self) -> str:
        """The `made_from` of the result."""
        return digest(self.record())


def states_of(group: zarr.Group) -> list[str]:
    """What tells the states of a group from others, JSON-ready; raises DamageError.

    The fingerprints that its shards have, or must get; and how often states were withdrawn that had these fingerprints
    and were not those of their sentences.
    """
    withdrawn = attributes_of(group).get(WITHDRAWN)
    planned = [bytes(row).hex() for row in read_array(group, "shard_planned")]
    return planned if withdrawn is None else [*planned, f"withdrawn {withdrawn}"]


def states_digest(group: zarr.Group) -> str:
    """Digest of `states_of` a group; raises DamageError."""
    return digest(states_of(group))


def column_digest(group: zarr.Group, name: str) -> str | None:
    """Digest of a coordinate's values; None where the group has no such coordinate. Raises DamageError."""
    attributes = attributes_of(group)
    if name not in [column for column, _ in attributes.get("columns", [])]:
        return None
    known = attributes.get("column_digests", {}) if "columns_made_from" in attributes else {}
    if name in known:
        return str(known[name])
    found = ValuesDigest()
    found.add(read_array(group, name))
    return found.hexadecimal


def inputs_of(
    groups: Sequence[zarr.Group], stage: str, columns: Sequence[str], settings: dict[str, Any], **more: Any
) -> ResultInputs:
    """The inputs of a result that is made now, of one group or of several that share a space; raises DamageError."""
    states = [states_digest(g) for g in groups]
    named = {name: column_digest(groups[0], name) for name in columns}
    return ResultInputs(stage, states[0] if len(states) == 1 else digest(states), named, settings, more)


def stale(group: zarr.Group, name: str, wanted: dict[str, Any] | None = None) -> str:
    """Why a result does not belong to what it stands beside; empty where it does, or there is no such result.

    wanted: what a job asks of each stage, by default what the group records of the last one. Results of older versions
    whose inputs cannot be told are taken to belong.
    """
    attributes = attributes_of(group)
    facts = attributes.get("results", {}).get(name)
    if not isinstance(facts, dict) or name not in group:
        return ""
    wanted = attributes.get(WANTED, {}) if wanted is None else wanted
    try:
        recorded = facts.get("inputs")
        if recorded is None:
            return _stale_by_digest(group, name, facts, wanted)
        return _stale_by_inputs(group, ResultInputs(**recorded), wanted)
    except (DamageError, TypeError) as error:
        return f"what it was made from cannot be read ({error})"


def stale_results(group: zarr.Group, wanted: dict[str, Any] | None = None) -> dict[str, str]:
    """Why, for each result of a group that does not belong to what it stands beside; coordinates are left out."""
    specs = {name: spec_of(name) for name in attributes_of(group).get("results", {})}
    names = [name for name, spec in specs.items() if spec is not None and not spec.is_coordinate]
    return {name: why for name in names if (why := stale(group, name, wanted))}


def is_asked_for(group: zarr.Group, name: str) -> bool:
    """Whether the last job that filled a group would make a result of its, were it missing; raises DamageError.

    Results that a job no longer asks for stay, and are stale once their states or settings changed.
    """
    attributes = attributes_of(group)
    wanted: dict[str, Any] = attributes.get(WANTED, {})
    name, label = split_name(name)
    if label and label not in wanted.get(LABELS, [])[1:]:
        return False
    method = name.removesuffix("_raw")
    if method in PROJECTIONS:
        return bool(method == wanted.get("project", {}).get("method", Project().method))
    if name == "candidate_logprob":
        return bool(wanted.get("candidates", {}).get("candidates", True))
    if name in ("probe_weight", "probe_offset", "probe_decision"):
        separation = attributes.get("results", {}).get(of_label("separation", label), {})
        of_sentences = name == "probe_decision"
        if separation.get("primary") == "r2":
            return not of_sentences and "r2" not in separation.get("skipped", {})
        if of_sentences and "dataset" in separation.get("split", {}):
            return False
        labels = separation.get("labels", [])
        metrics = wanted.get("measure", {}).get("metrics", "all")
        is_few = of_sentences or len(labels) <= MOST_PROBED
        return len(labels) >= 2 and is_few and (metrics == "all" or "probe" in metrics)
    if name in ("next_token", "prediction"):
        return "expected_next" in [column for column, _ in attributes.get("columns", [])]
    return True


def _stale_by_inputs(group: zarr.Group, inputs: ResultInputs, wanted: dict[str, Any]) -> str:
    settings = wanted.get(inputs.stage, inputs.settings)
    if settings != inputs.settings:
        names = [k for k in sorted({*settings, *inputs.settings}) if settings.get(k) != inputs.settings.get(k)]
        return f"the job's {', '.join(names)} changed since"
    if _states_of(group, inputs.settings.get("datasets")) != inputs.states:
        return "it was made from other states"
    changed = [name for name, made_from in inputs.columns.items() if column_digest(group, name) != made_from]
    if changed:
        return f"it was made from another {' and '.join(changed)}"
    test = inputs.more.get("test")
    return "" if test is None else _stale_test(group, test)


def tested_inputs(group: zarr.Group, label: str = "label") -> dict[str, Any]:
    """What a probe is tested on, of another group than its own, JSON-ready; raises DamageError.

    label: the column of the labels.
    """
    columns = {"label": column_digest(group, label), "group": column_digest(group, "group")}
    named = {} if label == "label" else {"column": label}
    return {"dataset": group.path.rsplit("/", 1)[-1], "states": states_digest(group), **columns, **named}


def _stale_test(group: zarr.Group, test: dict[str, Any]) -> str:
    """Why the group that a probe was tested on is not that any more; empty where it is."""
    name = test["dataset"]
    try:
        other = beside(group, name)
    except (FileNotFoundError, ValueError, KeyError):
        return f"{name}, which it was tested on, is gone"
    found = tested_inputs(other, test.get("column", "label"))
    changed = [part for part in ("states", "label", "group") if found[part] != test[part]]
    return f"it was tested on other {' and '.join(changed)} of {name}" if changed else ""


def beside(group: zarr.Group, name: str) -> zarr.Group:
    """Another group of the same model; raises FileNotFoundError, ValueError or KeyError where there is none."""
    model = group.path.rsplit("/", 1)[0]
    return zarr.open_group(group.store, path=f"{model}/{name}", mode="r", use_consolidated=False)


def _states_of(group: zarr.Group, datasets: list[str] | None) -> str:
    """Digest of the states of a group, or of the datasets of its model that share a space."""
    if datasets is None or len(datasets) == 1:
        return states_digest(group)
    return digest([states_digest(member) for member in _members(group, datasets)])


def _members(group: zarr.Group, datasets: list[str]) -> list[zarr.Group]:
    model = group.path.rsplit("/", 1)[0]
    try:
        return [zarr.open_group(group.store, path=f"{model}/{d}", mode="r", use_consolidated=False) for d in datasets]
    except (FileNotFoundError, ValueError, KeyError):
        raise DamageError(f"a dataset of {model} that it shares a space with is gone") from None


def _stale_by_digest(group: zarr.Group, name: str, facts: dict[str, Any], wanted: dict[str, Any]) -> str:
    """The same for a result of an older version, where the settings of its job are known by now."""
    stage = ARRAYS[name].writers[0] if name in ARRAYS else ""
    if stage not in wanted or stage not in ("measure", "project"):
        return ""
    if "split" in wanted[stage]:
        return "the job's split changed since"
    datasets = wanted[stage].get("datasets")
    groups = [group] if datasets is None else _members(group, datasets)
    fields = {k: v for k, v in wanted[stage].items() if k != "datasets"}
    settings = Measure(**fields) if stage == "measure" else Project(**fields)
    same = facts.get("made_from") == old_digest(groups, settings)
    return "" if same else "it was made from other states, labels or settings"


def old_digest(groups: Sequence[zarr.Group], settings: Measure | Project) -> str:
    """The `made_from` that older versions gave measures or a projection of these groups; raises DamageError."""
    states = [states_of(g) for g in groups]
    default = type(settings)().model_dump(mode="json")
    dumped = settings.model_dump(mode="json")
    kept = {k: v for k, v in dumped.items() if k in OLD_SETTINGS or v != default[k]}
    if isinstance(settings, Project):
        return digest([states, kept])
    columns = [read_array(groups[0], n) if n in groups[0] else None for n in ("label", "group")]
    return digest([states[0], [None if c is None else digest([str(v) for v in c]) for c in columns], kept])
