"""What is refused before a model is shared out over processes: machine, settings or model. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from drillcore.backends.transformers.plain_files import why_not_plain
from drillcore.errors import JobError
from drillcore.system.versions import installed_versions

if TYPE_CHECKING:
    from drillcore.backends.source import ModelSource
    from drillcore.job.extract import Extract

FIELD = "extract.tensor_parallel"
# The first version whose plans were run here.
OLDEST = (5, 23)
# Widths of a configuration that a plan cuts into equal parts.
WIDTHS = {
    "num_attention_heads": "attention heads",
    "num_key_value_heads": "key and value heads",
    "intermediate_size": "columns of its MLPs",
    "moe_intermediate_size": "columns of its experts",
}


def check(source: ModelSource | None, extract: Extract) -> None:
    """Raise JobError where a model cannot be shared out over so many processes. source: None asks about the machine."""
    _check_settings(extract)
    _check_machine(extract)
    if source is not None:
        _check_model(source, extract.tensor_parallel)


def dense_only(extract: Extract) -> Extract:
    """The settings by which a model in shards runs: what is not one function of plain tensors stays off."""
    return extract.model_copy(update={"attention": "dense", "compile": "off", "merge": "off"})


def _check_settings(extract: Extract) -> None:
    for name, value in (("attention", "flex"), ("compile", "on"), ("merge", "on")):
        if getattr(extract, name) == value:
            raise JobError(
                f"extract.{name}: {value} does not go with {FIELD} in the backend transformers",
                hint=f"Leave out extract.{name}.",
            )


def _check_machine(extract: Extract) -> None:
    version = installed_versions(["transformers"])["transformers"]
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise JobError(
            f"{FIELD} needs transformers {oldest} in the backend transformers, and {version} is installed",
            hint=f"pip install 'transformers>={oldest}', or leave it out.",
        )
    import torch

    from drillcore.backends.device import choose_device, num_threads

    device, ranks = choose_device(extract), extract.tensor_parallel
    if device.type == "cuda":
        if ":" in extract.device:
            raise JobError(
                f"extract.device: {extract.device} does not go with {FIELD}, which takes GPU 0 and those that follow",
                hint="Set device: cuda, and choose the GPUs with CUDA_VISIBLE_DEVICES.",
            )
        found = torch.cuda.device_count()
        if ranks > found:
            raise JobError(
                f"{FIELD} is {ranks}, but this machine has {found} GPU{'' if found == 1 else 's'}",
                hint=f"Set it to {found} at most, or to 1 with device_map: auto and offload: true for the model.",
            )
        return
    if torch.cuda.is_available():
        raise JobError(
            f"extract.device: cpu does not go with {FIELD} where there are GPUs, which transformers would take",
            hint="Leave one of the two out, or hide the GPUs: CUDA_VISIBLE_DEVICES= before the command.",
        )
    if ranks > num_threads(extract):
        raise JobError(
            f"{FIELD} is {ranks}, but the {ranks} processes would share {num_threads(extract)} CPU threads",
            hint="On a CPU it splits the threads of one model; leave it out.",
        )


def _check_model(source: ModelSource, ranks: int) -> None:
    for reason in _reasons(source, ranks):
        raise JobError(
            f"model {source.model.id}: {FIELD} in the backend transformers {reason}",
            hint="Leave extract.tensor_parallel out; device_map: auto puts layers of a model on several GPUs.",
        )


def _reasons(source: ModelSource, ranks: int) -> Iterator[str]:
    """What speaks against it, as the end of a sentence."""
    yield from why_not_plain(source)
    text = source.config.get_text_config(decoder=True)
    if not getattr(text, "base_model_tp_plan", None):
        yield f"needs a plan, which transformers does not have for {source.facts.model_type}"
    yield from _uneven(text, ranks)


def _uneven(text: Any, ranks: int) -> Iterator[str]:
    for name, what in WIDTHS.items():
        size = getattr(text, name, None)
        if isinstance(size, int) and size % ranks:
            yield f"is {ranks}, and its {size} {what} cannot be shared evenly by so many"
