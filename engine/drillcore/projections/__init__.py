"""The table of projections to two dimensions, and which one a job gets."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from drillcore.errors import JobError
from drillcore.job.fields import Project
from drillcore.system.registry import load_by_name

if TYPE_CHECKING:
    from drillcore.projections.base import Projection

# By name: the class, and the extra that installs its packages.
PROJECTIONS = {
    "umap-learn": ("drillcore.projections.umap_learn:UmapLearn", "umap"),
    "cuml": ("drillcore.projections.cuml:CumlUmap", "gpu"),
    "pca": ("drillcore.projections.pca:Pca", "umap"),
}
# Below this cuML's UMAP is poor, and starting it costs more than it saves.
GPU_FROM = 2000
# UMAP's own default.
SPREAD = 1.0


def choose_projection(settings: Project, num_sentences: int) -> tuple[str, str]:
    """Name of the projection for a layer of `num_sentences`, and why it was chosen.

    Raises JobError where UMAP would refuse the settings.

    >>> choose_projection(Project(), 50)
    ('umap-learn', 'fewer than 2,000 sentences')
    """
    if settings.method == "pca":
        return "pca", "the job asks for it"
    if settings.min_dist > SPREAD:
        raise JobError(
            f"project.min_dist is {settings.min_dist:g}; UMAP allows at most its spread, which is {SPREAD:g}",
            hint="Set project.min_dist to at most 1.",
        )
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
    except Exception:  # no driver, no device, a broken installation: in each case there is no GPU to use
        return False


def load_projection(name: str) -> Projection:
    """A projection by its name in `PROJECTIONS`.

    Raises JobError for an unknown name, MissingExtraError, with the remedy, where its packages are not installed.
    """
    projection: Projection = load_by_name("projection", name, PROJECTIONS)()
    return projection
