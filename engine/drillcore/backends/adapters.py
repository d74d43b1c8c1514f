"""Adapters of peft that lie beside a model, or where a model should be."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from drillcore.errors import MissingExtraError, ModelError
from drillcore.job.inputs import Model

# What peft writes beside an adapter's weights.
ADAPTER = "adapter_config.json"


def refuse_lone_adapter(model: Model, folder: Path) -> None:
    """Raise ModelError where a folder holds an adapter and no model."""
    if (folder / ADAPTER).exists():
        raise ModelError(
            f"model {model.id}: {folder} holds an adapter ({ADAPTER}) without its base model",
            hint="Merge it into its base model (peft: merge_and_unload, then save_pretrained) and name that folder.",
        )


def refuse_adapter_without_peft(model: Model, folder: Path) -> None:
    """transformers loads an adapter that lies beside a model, but passes over it where peft is not installed."""
    if (folder / ADAPTER).exists() and find_spec("peft") is None:
        raise MissingExtraError(
            f"model {model.id}: {folder} holds an adapter ({ADAPTER}), which needs peft, which is not installed",
            hint="pip install peft; or merge the adapter into the model; or, to leave it out, move its files away.",
        )
