"""Projections to two dimensions, by name."""

from __future__ import annotations

import importlib.util
from typing import Any

from drillcore.job import Project
from drillcore.plugins import load_by_name

PROJECTIONS = {
    "umap-learn": ("drillcore.projection.umap_cpu:UmapLearn", "umap"),
    "cuml": ("drillcore.projection.umap_gpu:CumlUmap", "gpu"),
    "pca": ("drillcore.projection.pca:Pca", "umap"),
}
# Below this cuML's UMAP is poor, and starting it costs more than it saves.
GPU_FROM = 2000


def choose(settings: Project, num_sentences: int) -> tuple[str, str]:
    """Which projection serves, and why."""
    if settings.method == "pca":
        return "pca", "the job asks for it"
    if settings.backend != "auto":
        return settings.backend, "the job asks for it"
    if num_sentences < GPU_FROM:
        return "umap-learn", f"fewer than {GPU_FROM:,} sentences"
    if importlib.util.find_spec("cuml") is None:
        return "umap-learn", "cuML is not installed"
    if not _gpu_visible():
        return "umap-learn", "no GPU is visible"
    return "cuml", "a GPU is visible and cuML is installed"


def _gpu_visible() -> bool:
    try:
        import cupy

        return int(cupy.cuda.runtime.getDeviceCount()) > 0
    except Exception:  # no driver, no device, a broken installation: all mean that there is none to use
        return False


def load(name: str) -> Any:
    """A projection by name; raises MissingExtraError where its packages are not installed."""
    return load_by_name("projection", name, PROJECTIONS)()
