"""What one worker computes with: device, dtype, threads, and its share of the host's memory."""

from __future__ import annotations

import importlib.util
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from drillcore.backends.source import ModelSource
from drillcore.errors import JobError, MissingExtraError
from drillcore.job.extract import Extract
from drillcore.job.model import Model
from drillcore.system.machine import cpu_model, num_cores, total_memory_bytes

if TYPE_CHECKING:
    import torch

# How transformers and accelerate spread a model.
DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")


@dataclass(frozen=True)
class Hardware:
    """The hardware of one worker.

    device: name of the GPU, or the CPU's instruction set. threads: CPU threads of a forward pass. memory_bytes: the
    host's memory divided by the workers that fit on the host, so that block sizes do not depend on the executor.
    num_workers: how many share the work. gpus: of one worker.
    """

    device: str
    threads: int
    memory_bytes: int
    num_workers: int = 1
    gpus: int = 0


def num_threads(extract: Extract) -> int:
    """CPU threads of a forward pass: those of the job, or as many as there are cores."""
    return num_cores() if extract.threads == "auto" else extract.threads


def num_gpus() -> int:
    """CUDA devices that this process sees."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def host_hardware(extract: Extract, gpus_on_host: int | None = None) -> Hardware:
    """The hardware of a worker on this host.

    gpus_on_host: their number, if this process sees only some of them.
    """
    import torch

    cores, threads = num_cores(), num_threads(extract)
    on_gpu = extract.device != "cpu" and torch.cuda.is_available()
    device = torch.cuda.get_device_name() if on_gpu else torch.backends.cpu.get_cpu_capability()
    gpus = gpus_on_host or torch.cuda.device_count()
    workers = gpus // extract.tensor_parallel if on_gpu else cores // threads
    memory = total_memory_bytes()
    return Hardware(device, threads, memory // max(1, workers), gpus=extract.tensor_parallel if on_gpu else 0)


def hardware() -> dict[str, Any]:
    """Processor, cores this process may use, memory in bytes, and the accelerators; JSON-ready. Imports torch."""
    import torch

    facts: dict[str, Any] = {
        "cpu": cpu_model(),
        "cores": num_cores(),
        "memory_bytes": total_memory_bytes(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "system": platform.platform(),
    }
    if torch.cuda.is_available():
        facts["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        facts["cuda"] = torch.version.cuda
    return facts


def choose_device(extract: Extract) -> torch.device:
    """The job's device; raises JobError where this machine does not have it."""
    import torch

    if extract.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(extract.device)
    except RuntimeError:
        raise JobError(f"extract.device: {extract.device} is not a device", hint="auto, cpu, cuda or cuda:N.") from None
    if device.type not in ("cpu", "cuda"):
        raise JobError(f"extract.device: {extract.device} is not supported", hint="auto, cpu, cuda or cuda:N.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        raise JobError(
            f"extract.device: {extract.device} is not on this machine, where PyTorch {torch.__version__} finds "
            f"{found or 'no'} CUDA device{'' if found == 1 else 's'}",
            hint="Use auto or cpu; or install the driver, and a PyTorch that is built for CUDA.",
        )
    return device


def check_devices(extract: Extract, model: Model) -> None:
    """Raise JobError where this machine lacks the job's device, or the one that a model's `device_map` names."""
    choose_device(extract)
    named = model.device_map
    if named is None:
        return
    if importlib.util.find_spec("accelerate") is None:
        raise MissingExtraError("device_map needs accelerate, which is not installed", hint="pip install accelerate")
    if named in DEVICE_MAPS:
        return
    try:
        choose_device(extract.model_copy(update={"device": named}))
    except JobError:
        raise JobError(
            f"device_map: {named} is neither one of {', '.join(DEVICE_MAPS)} nor a device of this machine",
            hint="Use auto, or leave device_map out.",
        ) from None


def choose_dtype(source: ModelSource, extract: Extract, device: torch.device) -> torch.dtype:
    """The dtype of the model's entry, else of the job; `auto` is bfloat16 on CUDA and float32 on a CPU."""
    import torch

    named = source.model.dtype or extract.dtype
    if named == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    dtype: torch.dtype = getattr(torch, named)
    return dtype


def dtype_name(dtype: torch.dtype) -> str:
    """The name that jobs and stores use, such as bfloat16."""
    return str(dtype).removeprefix("torch.")


def narrowing_note(source: ModelSource, extract: Extract, dtype: torch.dtype, stored: str) -> tuple[str, ...]:
    """A note where `auto` computes in a narrower or other dtype than the weights were saved in.

    stored: dtype of the weights in their files, such as float32; empty where it is not known.
    """
    named, chosen = source.model.dtype or extract.dtype, dtype_name(dtype)
    if named != "auto" or chosen != "bfloat16" or stored not in ("float16", "float32", "float64"):
        return ()
    return (f"its weights are {stored}; dtype: auto puts them into bfloat16 on CUDA (dtype: {stored} keeps them)",)
