"""Engines that run models. A job names one; everything else asks the table below and knows no backend by name.

docs/extending.md says how to add one.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from drillcore.errors import JobError, ModelError
from drillcore.system.registry import load_by_name
from drillcore.system.versions import installed_versions

if TYPE_CHECKING:
    from drillcore.backends.base import Backend
    from drillcore.backends.source import ModelSource
    from drillcore.job.extract import Extract

# Read every model's configuration, tokenizer and code, whichever backend runs it.
MODEL_DISTRIBUTIONS = ("torch", "transformers")
# The backend that every other one is checked against; it reads whatever model a job may name.
REFERENCE = "transformers"


@dataclass(frozen=True)
class BackendRow:
    """One backend.

    target: `module:Class` of the engine, imported only when a model is loaded. light: module with `check` and
    `versions`, which imports nothing heavy; it may be the same one. extra: what to install for it with pip, empty where
    it needs nothing of its own. audited: its class fulfils `Audited`, so that what it stored is audited.
    """

    target: str
    light: str
    extra: str = ""
    audited: bool = False


BACKENDS = {
    "auto": BackendRow("drillcore.backends.auto:AutoBackend", "drillcore.backends.auto", audited=True),
    "transformers": BackendRow(
        "drillcore.backends.transformers.backend:TransformersBackend",
        "drillcore.backends.transformers.refusals",
        "transformers",
        audited=True,
    ),
    "vllm": BackendRow(
        "drillcore.backends.vllm.backend:VllmBackend", "drillcore.backends.vllm.refusals", "vllm", audited=True
    ),
    "fake": BackendRow("drillcore.backends.fake:FakeBackend", "drillcore.backends.fake"),
}


class LightModule(Protocol):
    """What a backend says of itself before it is loaded."""

    def check(self, source: ModelSource | None, extract: Extract) -> None:
        """Refuse what this backend cannot run: this machine, or this model with these settings.

        source: None asks about the machine alone. Raises MissingExtraError or JobError, with a hint.
        """

    def versions(self) -> dict[str, str]:
        """Installed distributions that decide this backend's bytes and speed, by name."""


def check_backend(name: str, source: ModelSource | None, extract: Extract) -> None:
    """Refuse, before anything is loaded or written, what a backend cannot run.

    source: None asks about the machine alone. Raises JobError for an unknown name or a setting that the backend does
    not take, MissingExtraError where it is not installed or its version is not one that was tested.
    """
    _light(name).check(source, extract)


def check_weights(source: ModelSource, *, predicts: bool) -> None:
    """Refuse, from headers alone, weights that are not whole or belong to another model.

    predicts: whether the job wants next tokens too. Raises ModelError, MissingExtraError where a package is missing.
    """
    from drillcore.backends.transformers.fit import examine

    if not examine(source).has_head and predicts:
        raise ModelError(
            f"model {source.model.id}: its files hold no output embedding, so that next tokens cannot be predicted",
            hint="Leave out expected_next and candidates, or name a folder that was saved from the causal model.",
        )


def check_spread(source: ModelSource, extract: Extract) -> None:
    """Refuse a model that `device_map` would put on the disk, or on the CPU beside a GPU, unless the job allows it.

    Reads its configuration and the memory of this machine. Raises ModelError, JobError for a device that is not there.
    """
    if source.model.device_map is None:
        return
    from drillcore.backends.device import choose_device, choose_dtype
    from drillcore.backends.transformers.spreading import refuse_offload

    refuse_offload(source, choose_dtype(source, extract, choose_device(extract)))


def versions_of(name: str) -> dict[str, str]:
    """Installed distributions that decide a backend's bytes and speed; raises JobError for an unknown name.

    >>> versions_of("fake")
    {}
    """
    return _light(name).versions()


def all_versions() -> dict[str, str]:
    """Installed distributions that decide the bytes of any backend in the table."""
    packages = installed_versions(MODEL_DISTRIBUTIONS)
    for name in BACKENDS:
        packages |= versions_of(name)
    return packages


def is_audited(name: str) -> bool:
    """Whether what a backend stores can be computed again by plain `transformers`.

    >>> is_audited("vllm"), is_audited("fake")
    (True, False)
    """
    return name in BACKENDS and BACKENDS[name].audited


def numerics_hold(name: str, numerics: dict[str, Any]) -> bool:
    """Whether stored numerics are of the engine that is installed now.

    An engine with a version of its own records it in the numerics under the backend's name. Where no such engine is
    installed the numerics hold too: the backend then says what is missing.

    name: of the job's backend; numerics of a job that left the choice open name the one that was chosen.
    """
    name = numerics.get("backend", name)
    recorded = numerics.get(name)
    engines = [version for package, version in versions_of(name).items() if package not in MODEL_DISTRIBUTIONS]
    return not recorded or not engines or recorded == engines[0]


def load_backend(name: str, source: ModelSource, extract: Extract, layers: Sequence[int]) -> Backend:
    """A backend with the model loaded, not prepared yet.

    layers: numbers of the layer contract, ascending. Raises JobError for an unknown name, MissingExtraError where its
    packages are not installed, and what the backend raises.
    """
    table = {known: (row.target, row.extra) for known, row in BACKENDS.items()}
    backend: Backend = load_by_name("backend", name, table)(source, extract, layers)
    return backend


def _light(name: str) -> LightModule:
    if name not in BACKENDS:
        raise JobError(f"backend {name} is unknown", hint=f"One of {', '.join(BACKENDS)}.")
    return cast(LightModule, importlib.import_module(BACKENDS[name].light))
