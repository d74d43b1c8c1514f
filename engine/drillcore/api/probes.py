"""The stored probe of a group as one safetensors file, for states that come from somewhere else.

Shape legend: L layers, C labels (1 where they are numbers), H hidden size.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import drillcore
from drillcore.errors import StoreError
from drillcore.measures import OF_NUMBERS
from drillcore.runtime.results import Measured, labels_of, read_separation, result_facts
from drillcore.runtime.stages.extract.recipes import recorded
from drillcore.store.arrays import of_label
from drillcore.store.attributes import attributes_of
from drillcore.store.freshness import MOST_PROBED, is_asked_for, stale
from drillcore.store.layout import read_array
from drillcore.system.files import digest

if TYPE_CHECKING:
    from drillcore.api.export import Layer

NAME = "drillcore probe 1"


def write_probe(layer: Layer, path: Path) -> str:
    """Write the probe of a layer, or of every layer that has one; raises StoreError where there is none."""
    from safetensors.numpy import save_file

    group, slots_L = layer.group, _slots(layer)
    names = [of_label(name, layer.label) for name in ("probe_weight", "probe_offset")]
    weight_LCH, offset_LC = (read_array(group, name)[slots_L] for name in names)
    labels = [str(label) for label in read_array(group, of_label("probe_label", layer.label))]
    measured = read_separation(group, layer.label)
    is_number = measured is not None and measured.primary == OF_NUMBERS
    tensors: dict[str, NDArray[Any]] = {"weight": weight_LCH, "offset": offset_LC}
    if len(labels) == 2 and not is_number:
        tensors |= {"direction": weight_LCH[:, 1] - weight_LCH[:, 0], "threshold": offset_LC[:, 0] - offset_LC[:, 1]}
    tensors["layer"] = read_array(group, "layer")[slots_L]
    contiguous = {name: np.ascontiguousarray(values) for name, values in tensors.items()}
    said = _metadata(layer, slots_L, labels)
    if measured is not None and is_number:
        said |= _of_numbers(measured, slots_L)
    save_file(contiguous, path, metadata=said)
    left_out = [str(n) for k, n in enumerate(read_array(group, "layer_name")) if layer.every and k not in slots_L]
    return f"Without a probe, as all of their states are the same: {', '.join(left_out)}." if left_out else ""


def _slots(layer: Layer) -> NDArray[np.int64]:
    """The layers that are written; raises StoreError where one has no probe."""
    group, path = layer.group, layer.group.path
    weight, offset, measures = (of_label(n, layer.label) for n in ("probe_weight", "probe_offset", "separation"))
    run = "Run `drillcore measure` on its job: it fits them."
    if why := stale(group, weight):
        raise StoreError(f"{path}: its probes are stale: {why}", hint=run)
    if result_facts(group, weight) is None:
        if result_facts(group, measures) is None:
            raise StoreError(f"{path} has not been measured", hint=run)
        if is_asked_for(group, weight):
            raise StoreError(f"{path} holds no probes: they were measured, and not stored", hint=run)
        what = f"probes are stored where `measure.metrics` has `probe`, of 2 to {MOST_PROBED} labels, and of numbers"
        raise StoreError(f"{path} holds no probes", hint=what[0].upper() + what[1:] + ".")
    fitted_L = ~np.isnan(read_array(group, offset)).any(axis=1)
    slots_L = np.flatnonzero(fitted_L) if layer.every else np.array([layer.slot])
    if not len(slots_L) or not fitted_L[slots_L].all():
        raise StoreError(
            f"{path}: layer {layer.name} has no probe: all of its states are the same", hint="Name another layer."
        )
    return slots_L


def _metadata(layer: Layer, slots_L: NDArray[np.int64], labels: list[str]) -> dict[str, str]:
    """What the tensors mean, as safetensors holds it: text by name; lists as JSON."""
    group, attributes = layer.group, attributes_of(layer.group)
    facts, fields = result_facts(group, of_label("probe_weight", layer.label)) or {}, labels_of(group)
    identities = [dict(recipe.request["model"]) for recipe in recorded(attributes)]
    names = read_array(group, "layer_name")[slots_L]
    said = {
        "format": NAME,
        "group": group.path,
        "model": next((str(i["id"]) for i in identities if i.get("id")), group.path.partition("/")[0]),
        "model_identity": digest(identities[0]) if identities else "",
        "layers": json.dumps(read_array(group, "layer")[slots_L].tolist()),
        "layer_names": json.dumps([str(name) for name in names]),
        "position": str(attributes.get("position", "last")),
        **({"label": layer.label or fields[0]} if fields else {}),
        "labels": json.dumps(labels, ensure_ascii=False),
        "standardise": f"{facts.get('standardise', '')}, folded into weight and offset",
        "sentences": str(facts.get("sentences", "")),
        "use": "labels[argmax(states @ weight[k].T + offset[k])] for raw states of layers[k]",
        "drillcore": drillcore.__version__,
    }
    if len(labels) == 2:
        said["threshold"] = "labels[1] where states @ direction[k] > threshold[k], else labels[0]"
    return said


def _of_numbers(measured: Measured, slots_L: NDArray[np.int64]) -> dict[str, str]:
    """What is said in other words of a probe that predicts a number."""
    values_L = measured.values_LMB[slots_L, measured.metrics.index(OF_NUMBERS), 0]
    return {
        "label_type": "number",
        "labels": "[]",
        "use": "states @ weight[k, 0] + offset[k, 0] is the predicted label, for raw states of layers[k]",
        "r2": json.dumps([float(f"{value:.6g}") if np.isfinite(value) else None for value in values_L]),
        "r2_of": "the test rows of the split"
        if "split" in measured.facts
        else "sentences held out by cross-validation",
    }
