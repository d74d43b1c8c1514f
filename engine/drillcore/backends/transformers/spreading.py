"""Where `device_map` would put a model's layers: planned before they are read, and refused where they do not fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from drillcore.backends.device import DEVICE_MAPS
from drillcore.backends.source import ModelSource
from drillcore.backends.transformers.fit import build_on_meta
from drillcore.backends.transformers.quantised import is_quantised
from drillcore.errors import ModelError
from drillcore.system.quiet import quiet_transformers

HINT = (
    "Set offload: true for the model to run it all the same, many times as slow; or take a narrower dtype, "
    "quantization:, more GPUs, or extract.device: cpu without device_map."
)


def refuse_offload(source: ModelSource, dtype: torch.dtype) -> None:
    """Raise ModelError where a model would not fit on its devices, and the job does not allow it.

    dtype: that the model computes in. Nothing is read but the configuration. What quantised weights take is known once
    they are loaded, so that `refuse_offloaded` looks at them then.
    """
    quantised = is_quantised(source.config) or source.model.quantization is not None
    if source.model.device_map not in DEVICE_MAPS or source.model.offload or quantised:
        return
    refuse_offloaded(source, planned(source, dtype))


def refuse_offloaded(source: ModelSource, where: Mapping[str, Any]) -> None:
    """Raise ModelError where parts of a model are put on the disk, or on the CPU beside a GPU, unless the job says so.

    where: device by the name of a part, as transformers records it. A machine without GPU has all on the CPU.
    """
    devices = {name: str(device) for name, device in where.items()}
    kinds = set(devices.values())
    if source.model.offload or not ("disk" in kinds or ("cpu" in kinds and kinds != {"cpu"})):
        return
    counts = {kind: sum(device == kind for device in devices.values()) for kind in ("cpu", "disk") if kind in kinds}
    there = " and ".join(f"{count} on the {kind.replace('cpu', 'CPU')}" for kind, count in counts.items())
    raise ModelError(
        f"model {source.model.id} does not fit on this machine's devices: device_map: {source.model.device_map} would "
        f"put {there} of its {len(devices)} parts, and move each to where it is computed in every pass",
        hint=HINT,
    )


def planned(source: ModelSource, dtype: torch.dtype) -> dict[str, Any]:
    """The device of each part, as transformers would choose it now; by the sizes of plain weights of this dtype."""
    from transformers.integrations import accelerate as spreading

    causal, named = build_on_meta(source).to(dtype), source.model.device_map
    apart = causal._no_split_modules
    with quiet_transformers():
        if named == "sequential":
            memory = spreading.get_max_memory(None)
        else:
            memory = spreading.get_balanced_memory(
                causal, no_split_module_classes=apart, low_zero=named == "balanced_low_0"
            )
        found: dict[str, Any] = spreading.infer_auto_device_map(
            causal, max_memory=memory, no_split_module_classes=apart
        )
    return found
