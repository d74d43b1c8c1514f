"""What this machine can run, and how to get the rest."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

from drillcore.backends.vllm.refusals import vllm_version
from drillcore.errors import MissingExtraError


@dataclass(frozen=True)
class Finding:
    """One part: whether it is there, what was found, and how to get it where it is not."""

    part: str
    present: bool
    found: str
    remedy: str = ""


def examine() -> Iterator[Finding]:
    """Look at each part that a job may use."""
    yield Finding("cpu", True, f"{len(os.sched_getaffinity(0))} cores, {_memory_bytes() / 2**30:.0f} GiB")
    yield _package("transformers", "transformers", "transformers")
    yield _gpu()
    yield _package("umap", "umap-learn", "umap")
    yield _cuml()
    yield _package("datashader", "datashader", "pictures")
    yield _vllm()
    yield _package("ray", "ray", "ray")
    browser = next((b for b in ("chromium", "google-chrome", "firefox") if shutil.which(b)), None)
    yield Finding("browser", browser is not None, browser or "", "only needed to look at reports on this machine")
    compiler = shutil.which("g++")
    yield Finding("compiler", compiler is not None, compiler or "", "FlexAttention on a CPU needs g++")


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _package(part: str, distribution: str, extra: str) -> Finding:
    version = _version(distribution)
    return Finding(part, version is not None, f"{distribution} {version}", f"pip install 'drillcore[{extra}]'")


def _gpu() -> Finding:
    if importlib.util.find_spec("torch") is None:
        return Finding("gpu", False, "", "pip install 'drillcore[transformers]'")
    import torch

    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    remedy = "none is visible to torch; models run on the CPU"
    if torch.version.cuda is None:
        remedy = f"torch {torch.__version__} is a CPU build; on a GPU server install torch's CUDA build"
    return Finding("gpu", bool(names), ", ".join(names), remedy)


def _cuml() -> Finding:
    version = _version("cuml-cu12") or _version("cuml-cu13")
    return Finding("cuml", version is not None, f"cuml {version}", "pip install 'drillcore[gpu]' (NVIDIA GPUs; 2.6 GB)")


def _vllm() -> Finding:
    try:
        return Finding("vllm", True, f"vllm {vllm_version()}")
    except MissingExtraError as error:
        return Finding("vllm", False, "", f"{error}. {error.hint}")
