"""What this machine can run, and how to get the rest."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from drillcore.api.page import table
from drillcore.backends import BACKENDS, check_backend, versions_of
from drillcore.backends.rates import WORTHWHILE, bfloat16_gain
from drillcore.errors import MissingExtraError
from drillcore.job.extract import Extract
from drillcore.system.machine import driver_cuda, num_cores, total_memory_bytes

# By major version of CUDA: cuML's package, and the extra that names it.
WHEELS = {12: "cuml-cu12", 13: "cuml-cu13"}
EXTRAS = {12: "gpu-cu12", 13: "gpu"}


@dataclass(frozen=True)
class Part:
    """Something a job may use: whether it is here, its version or device, and how to get it where it is missing."""

    name: str
    present: bool
    detail: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {'yes' if self.present else 'no'}, {self.detail if self.present else self.remedy}"


@dataclass(frozen=True)
class Parts:
    """What this machine can run. Iterates over its parts; `parts["gpu"]` is one by its name."""

    parts: tuple[Part, ...]

    def __iter__(self) -> Iterator[Part]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, name: str) -> Part:
        return {part.name: part for part in self.parts}[name]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"parts": [asdict(part) for part in self.parts]}

    def __repr__(self) -> str:
        return "\n".join(map(str, self.parts))

    def _repr_html_(self) -> str:
        rows = [(p.name, "yes" if p.present else "no", p.detail if p.present else p.remedy) for p in self.parts]
        return table("this machine", ("part", "here", ""), rows)


def doctor() -> Parts:
    """What this machine can run, and how to install the rest; takes some seconds.

    >>> parts = drillcore.doctor()
    >>> parts["cpu"].present, {part.name for part in parts} >= {"gpu", "umap", "ray"}
    (True, True)
    """
    return Parts(tuple(parts()))


def parts() -> Iterator[Part]:
    """Look at every part that a job may use, and yield one `Part` each. Imports torch where it is installed."""
    yield Part("cpu", True, f"{num_cores()} cores, {total_memory_bytes() / 2**30:.0f} GiB")
    yield from (_backend(name) for name, row in BACKENDS.items() if row.extra)
    yield _gpu()
    yield _bfloat16()
    yield _package("umap", "umap-learn", "umap")
    yield _cuml()
    yield _package("datashader", "datashader", "pictures")
    yield _package("ray", "ray", "ray")
    yield _package("datasets", "datasets", "datasets")
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


def _bfloat16() -> Part:
    if importlib.util.find_spec("torch") is None:
        return Part("bfloat16", False, "", "pip install 'drillcore[transformers]'")
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    gain = bfloat16_gain(device)
    said = f"products {gain:.1f} times as fast as in float32"
    if device == "cuda":
        return Part("bfloat16", True, f"{said}; extract.dtype: auto takes it on CUDA")
    if gain < WORTHWHILE:
        return Part("bfloat16", False, "", f"{said}: float32, the default on a CPU, is as fast, and exact")
    return Part("bfloat16", True, f"{said}: extract.dtype: bfloat16 is faster here, and rounds states to 8 bits")


def _cuml() -> Part:
    found = {major: version for major, package in WHEELS.items() if (version := _version(package))}
    driver = driver_cuda()
    if len(found) > 1:
        both = " and ".join(WHEELS.values())
        return Part("cuml", False, "", f"both {both} are installed, and share files: uninstall both, then install one")
    for major, version in found.items():
        if driver is not None and driver[0] < major:
            return Part("cuml", False, "", f"{WHEELS[major]} needs CUDA {major}; {_wheel(driver)}")
        return Part("cuml", True, f"{WHEELS[major]} {version}")
    return Part("cuml", False, "", _wheel(driver))


def _wheel(driver: tuple[int, int] | None) -> str:
    """What fits the driver, in the environment of a PyTorch that may be built for another CUDA."""
    if driver is None:
        return "no NVIDIA driver on this machine; UMAP runs on the CPU"
    runs = f"the driver runs CUDA {driver[0]}.{driver[1]}"
    fitting = [major for major in WHEELS if major <= driver[0]]
    if not fitting:
        return f"{runs}, and cuML needs {min(WHEELS)} or later: install a newer driver"
    built = _built_for()
    major = built if built in fitting else max(fitting)
    torch = f", and PyTorch is built for {built}" if built else ""
    return f"pip install 'drillcore[{EXTRAS[major]}]' ({WHEELS[major]}: {runs}{torch}; 2.6 GB)"


def _built_for() -> int | None:
    """CUDA's major version that the installed PyTorch was built for."""
    if importlib.util.find_spec("torch") is None:
        return None
    import torch

    return int(torch.version.cuda.split(".")[0]) if torch.version.cuda else None


def _backend(name: str) -> Part:
    try:
        check_backend(name, None, Extract())
    except MissingExtraError as error:
        return Part(name, False, "", f"{error}. {error.hint}")
    return Part(name, True, ", ".join(f"{package} {version}" for package, version in versions_of(name).items()))
