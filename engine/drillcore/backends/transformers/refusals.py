"""What the transformers backend needs before it is loaded: its packages. Imports nothing heavy."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from drillcore.backends.device import choose_device
from drillcore.errors import JobError, MissingExtraError
from drillcore.system.versions import installed_versions

if TYPE_CHECKING:
    from drillcore.backends.source import ModelSource
    from drillcore.job.fields import Extract

DISTRIBUTIONS = ("transformers", "torch")
# How transformers and accelerate spread a model.
DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")


def check(source: ModelSource | None, extract: Extract) -> None:
    """Raise MissingExtraError where a package is not installed, JobError for a setting that it does not take."""
    missing = [name for name in DISTRIBUTIONS if name not in versions()]
    if missing:
        raise MissingExtraError(
            f"backend transformers needs {missing[0]}, which is not installed",
            hint="pip install 'drillcore[transformers]'",
        )
    if extract.tensor_parallel > 1:
        raise JobError(
            f"extract.tensor_parallel is {extract.tensor_parallel}, which backend transformers does not offer",
            hint="Set extract.backend: vllm, or device_map: auto for the model.",
        )
    if source is not None and source.model.device_map is not None:
        _check_device_map(source.model.device_map, extract)


def _check_device_map(device_map: str, extract: Extract) -> None:
    if device_map not in DEVICE_MAPS:
        try:
            choose_device(extract.model_copy(update={"device": device_map}))
        except JobError:
            raise JobError(
                f"device_map: {device_map} is neither one of {', '.join(DEVICE_MAPS)} nor a device of this machine",
                hint="Use auto, or leave device_map out.",
            ) from None
    if importlib.util.find_spec("accelerate") is None:
        raise MissingExtraError("device_map needs accelerate, which is not installed", hint="pip install accelerate")


def versions() -> dict[str, str]:
    """Installed distributions that decide bytes and speed."""
    return installed_versions(DISTRIBUTIONS)
