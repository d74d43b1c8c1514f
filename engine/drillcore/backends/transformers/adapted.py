"""Puts adapters on models through `peft`: on one without values first, which shows whether the two fit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from drillcore.backends.adapters import ADAPTER, WEIGHTS, Adapter
from drillcore.backends.source import ModelSource
from drillcore.backends.weight_files import few, read_headers
from drillcore.errors import ModelError
from drillcore.system.quiet import quiet_transformers

HINT = "Name the adapter with the model that it was made for, and the files that were saved together."
# Keeps transformers from looking for an adapter beside a model by itself: there is no such folder in any model's.
LEFT_TO_US = {"adapter_kwargs": {"subfolder": "adapters-are-put-on-by-drillcore"}}


def check_adapter(source: ModelSource, on_meta: Any) -> Iterator[str]:
    """Notes on a model's adapter, if it has one; raises ModelError where the two do not fit.

    on_meta: the model without values, which is changed.
    """
    adapter = source.adapter
    if adapter is None:
        return
    read_headers(source.model.id, [adapter.folder / WEIGHTS])
    put_on(source, adapter, on_meta, "cpu")
    if not adapter.named:
        yield f"the adapter that lies beside it is loaded with it ({ADAPTER})"
    if not _same(adapter.base, source):
        base = adapter.base or "a model that it does not name"
        yield f"its adapter was made for {base} ({ADAPTER}), and is put on {source.model.id}"


def apply_adapter(source: ModelSource, causal: Any, device: torch.device) -> Any:
    """The model with its adapter, merged where the job says so; itself where it has none."""
    if source.adapter is None:
        return causal
    adapted = put_on(source, source.adapter, causal, str(device))
    if not source.model.merge_adapter:
        return adapted.get_base_model()
    try:
        with quiet_transformers():
            return adapted.merge_and_unload(safe_merge=True)
    except (ValueError, RuntimeError, NotImplementedError, AttributeError) as error:
        raise ModelError(
            f"model {source.model.id}: its adapter cannot be merged: {_first_line(error)}",
            hint="Set merge_adapter: false.",
        ) from error


def put_on(source: ModelSource, adapter: Adapter, causal: Any, device: str) -> Any:
    """peft's model around this one, which gets the adapter's modules; raises ModelError where they do not fit."""
    about = f"model {source.model.id}: the adapter in {adapter.folder}"
    try:
        with quiet_transformers():
            from peft import PeftConfig, PeftModel

            config = PeftConfig.from_pretrained(str(adapter.folder))
            config.inference_mode = True
            is_meta = next(causal.parameters()).is_meta
            adapted = PeftModel(causal, config, low_cpu_mem_usage=is_meta)
            report = adapted.load_adapter(
                str(adapter.folder), "default", torch_device=device, low_cpu_mem_usage=is_meta
            )
    except Exception as error:  # each kind of adapter stumbles in its own way
        raise ModelError(f"{about} does not fit: {_first_line(error)}", hint=HINT) from error
    missing, foreign = sorted(report.missing_keys), sorted(report.unexpected_keys)
    if missing or foreign:
        what = f"lacks {few(missing)}" if missing else f"holds {few(foreign)}, for which there is no place"
        raise ModelError(f"{about} does not fit: it {what}", hint=HINT)
    adapted.eval()
    return adapted


def _same(named: str, source: ModelSource) -> bool:
    """Whether the name of an adapter's base model is that of this one: its id, its folder, or the folder's own name."""
    paths = [Path(name) for name in (named, source.model.id, source.location) if name]
    return named in (source.model.id, source.location) or (bool(named) and paths[0].name in {p.name for p in paths[1:]})


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # PyTorch's errors of shapes say in their second line which.
    return " ".join(lines[:2]) if lines else type(error).__name__
