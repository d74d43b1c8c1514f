"""Adapters of peft: where one is, what its configuration says, and which of them can be applied. Reads no weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from drillcore.errors import MissingExtraError, ModelError
from drillcore.job.common import expand
from drillcore.job.model import Model, is_local
from drillcore.system.bounds import problem_with, read_json, real_path

# What peft writes: the configuration of an adapter, and its weights.
ADAPTER, WEIGHTS, PICKLED = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
# Kinds that change modules in place and nothing around them, by which alone the decoder gives the adapter's states.
KINDS = ("LORA", "ADALORA", "IA3", "LOHA", "LOKR", "OFT", "HRA", "VERA")
# Settings by which an adapter does more than that.
BEYOND = ("layer_replication", "alora_invocation_tokens", "arrow_config", "megatron_config")
SAVED = "Name a folder written by save_pretrained of a model of peft."


@dataclass(frozen=True)
class Adapter:
    """An adapter that was found.

    folder: of its files. named: the job names it; else it lies beside the model. base: of the model that it was made
    for, as its configuration says; may be empty. revision: commit on the hub, or None.
    """

    folder: Path
    named: bool
    base: str
    revision: str | None = None

    def identity(self, digest_of: Callable[[Path], str], *, merged: bool) -> dict[str, Any]:
        """Its part of a model's identity; the weights of one that lies beside a model are among that model's own."""
        digests: dict[str, Any] = {"adapter": digest_of(self.folder / ADAPTER)}
        if self.named:
            digests = {"adapter_files": {name: digest_of(self.folder / name) for name in (ADAPTER, WEIGHTS)}}
            digests |= {"adapter_revision": self.revision} if self.revision else {}
        return {**digests, "adapter_merged": True} if merged else digests


def find_adapter(model: Model, location: str, base: Path) -> Adapter | None:
    """The adapter that a job names for a model, or that lies in the model's own folder; None where there is none.

    location: folder or hub id of the model; base: where relative folders start. Raises ModelError where it cannot be
    applied, MissingExtraError where peft is not installed.
    """
    beside = (Path(location) / ADAPTER).exists() and not model.random_weights
    if model.adapter is None:
        if model.merge_adapter and not beside:
            raise ModelError(
                f"model {model.id}: merge_adapter, but it has no adapter",
                hint="Name one with adapter:, or leave it out.",
            )
        if not beside:
            return None
        folder = Path(location)
    elif beside:
        raise ModelError(
            f"model {model.id}: an adapter lies beside it ({ADAPTER}), and the job names another one",
            hint="Move the files of the one that is not meant away from the model.",
        )
    else:
        folder = _named_folder(model, base)
    if find_spec("peft") is None:
        raise MissingExtraError(
            f"model {model.id}: {folder} holds an adapter ({ADAPTER}), which needs peft, which is not installed",
            hint="pip install 'drillcore[adapters]'; or merge the adapter into the model; or, to leave it out, "
            + ("leave out adapter:." if model.adapter else "move its files away."),
        )
    config = _read(model, folder)
    named = config.get("base_model_name_or_path")
    # The hub's cache names the folder of a snapshot by its commit.
    commit = None if model.adapter is None or is_local(model.adapter) else folder.name
    return Adapter(folder, model.adapter is not None, named if isinstance(named, str) else "", commit)


def _named_folder(model: Model, base: Path) -> Path:
    """The folder of the adapter that the job names; one of the hub is fetched."""
    name = model.adapter or ""
    if is_local(name):
        folder = real_path(base / expand(name))
        if not folder.is_dir():
            what = f"model {model.id}: there is no folder {folder}, which its adapter names"
            raise ModelError(what, hint="Name a folder, relative to the job file and beginning with ./, or a hub id.")
        return folder
    if (base / name / ADAPTER).is_file():
        what = f"model {model.id}: adapter {name}: there is a folder of this name beside the job file"
        raise ModelError(what, hint=f"Write ./{name} for it; for the adapter on the hub, call the folder otherwise.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        found = snapshot_download(name, revision=model.adapter_revision, allow_patterns=[ADAPTER, WEIGHTS, PICKLED])
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        at = f" at {model.adapter_revision}" if model.adapter_revision else ""
        why = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ModelError(
            f"model {model.id}: its adapter {name}{at} cannot be had from the hub: {why}",
            hint="Check the spelling and the connection; the name of a folder begins with ./ or /.",
        ) from error
    return Path(found)


def _read(model: Model, folder: Path) -> dict[str, Any]:
    """The configuration of an adapter; raises ModelError where it is not one that can be applied."""
    about = f"model {model.id}: the adapter in {folder}"
    if not (folder / ADAPTER).exists():
        raise ModelError(f"{about} has no {ADAPTER}", hint=SAVED)
    try:
        config = read_json(folder / ADAPTER)
    except (OSError, ValueError) as error:
        raise ModelError(f"{about} has an {ADAPTER} that cannot be read: {error}", hint=SAVED) from error
    if not isinstance(config, dict):
        raise ModelError(f"{about} has an {ADAPTER} that is not a JSON object", hint=SAVED)
    refuse_kind(about, config)
    if not (folder / WEIGHTS).exists():
        pickled = f"; {PICKLED} is pickled, and pickled weights are never read" if (folder / PICKLED).exists() else ""
        raise ModelError(
            f"{about} has no {WEIGHTS}{pickled}",
            hint="Save it again with peft, which writes safetensors." if pickled else SAVED,
        )
    if problem := problem_with(folder / WEIGHTS):
        raise ModelError(f"{about}: {folder / WEIGHTS} {problem}", hint="Put the file itself there.")
    return config


def refuse_kind(about: str, config: dict[str, Any]) -> None:
    """Raise ModelError for an adapter that does more than change modules of the model: adds tokens, or layers.

    >>> refuse_kind("the adapter", {"peft_type": "LORA", "r": 8})
    """
    kind = config.get("peft_type")
    kind = str(getattr(kind, "value", kind))
    if kind not in KINDS:
        raise ModelError(
            f"{about} is of the kind {kind}, which is not one that is applied",
            hint=f"One of {', '.join(KINDS)} is applied.",
        )
    if found := [name for name in BEYOND if config.get(name)]:
        raise ModelError(
            f"{about} sets {found[0]}, by which it does more than change the model's modules",
            hint="Only adapters that change the modules of a model are applied.",
        )


def refuse_lone_adapter(model: Model, folder: Path) -> None:
    """Raise ModelError where a folder holds an adapter and no model."""
    if (folder / ADAPTER).exists():
        raise ModelError(
            f"model {model.id}: {folder} holds an adapter ({ADAPTER}) without its base model",
            hint="Name the base model as `id` and this folder as `adapter`.",
        )
