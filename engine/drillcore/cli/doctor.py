"""`drillcore doctor`: what this machine can run, and how to get the rest."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

from drillcore.backends import BACKENDS, check_backend, versions_of
from drillcore.errors import MissingExtraError
from drillcore.job.fields import Extract
from drillcore.system.machine import num_cores, total_memory_bytes


@dataclass(frozen=True)
class Part:
    """Something a job may use: whether it is here, its version or device, and how to get it where it is missing."""

    name: str
    present: bool
    detail: str
    remedy: str = ""


def parts() -> Iterator[Part]:
    """Look at every part that a job may use, and yield one `Part` each. Imports torch where it is installed."""
    yield Part("cpu", True, f"{num_cores()} cores, {total_memory_bytes() / 2**30:.0f} GiB")
    yield from (_backend(name) for name, row in BACKENDS.items() if row.extra)
    yield _gpu()
    yield _package("umap", "umap-learn", "umap")
    yield _cuml()
    yield _package("datashader", "datashader", "pictures")
    yield _package("ray", "ray", "ray")
    browser = next((b for b in ("chromium", "google-chrome", "firefox") if shutil.which(b)), None)
    yield Part("browser", browser is not None, browser or "", "only needed to look at reports on this machine")
    compiler = shutil.which("g++")
    yield Part("compiler", compiler is not None, compiler or "", "FlexAttention on a CPU needs g++")


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _package(name: str, distribution: str, extra: str) -> Part:
    version = _version(distribution)
    return Part(name, version is not None, f"{distribution} {version}", f"pip install 'drillcore[{extra}]'")


def _gpu() -> Part:
    if importlib.util.find_spec("torch") is None:
        return Part("gpu", False, "", "pip install 'drillcore[transformers]'")
    import torch

    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    remedy = "torch sees no GPU; models run on the CPU"
    if torch.version.cuda is None:
        remedy = f"torch {torch.__version__} is a CPU build; on a GPU server install torch's CUDA build"
    return Part("gpu", bool(names), ", ".join(names), remedy)


def _cuml() -> Part:
    version = _version("cuml-cu12") or _version("cuml-cu13")
    return Part("cuml", version is not None, f"cuml {version}", "pip install 'drillcore[gpu]' (NVIDIA GPUs; 2.6 GB)")


def _backend(name: str) -> Part:
    try:
        check_backend(name, None, Extract())
    except MissingExtraError as error:
        return Part(name, False, "", f"{error}. {error.hint}")
    return Part(name, True, ", ".join(f"{package} {version}" for package, version in versions_of(name).items()))
