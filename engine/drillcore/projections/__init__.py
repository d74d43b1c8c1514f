"""The table of projections to two dimensions, and which one a job gets."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from drillcore.errors import JobError, MissingExtraError
from drillcore.job.stages import Project
from drillcore.system.registry import load_by_name

if TYPE_CHECKING:
    from drillcore.projections.base import Projection

# By name: the class, and the extra that installs its packages.
PROJECTIONS = {
    "umap-learn": ("drillcore.projections.umap_learn:UmapLearn", "umap"),
    "cuml": ("drillcore.projections.cuml:CumlUmap", "gpu"),
    "pca": ("drillcore.projections.pca:Pca", "umap"),
}
# Packages that are looked for before a run; a projection that is not listed is looked for when it is loaded.
NEEDS = {"umap-learn": ("umap", "pynndescent", "numba"), "cuml": ("cuml",)}
# Below this cuML's UMAP is poor, and starting it costs more than it saves.
GPU_FROM = 2000
# UMAP's own default.
SPREAD = 1.0


def check_projection(settings: Project, *, installed: bool = False) -> None:
    """Raise JobError for settings that no projection takes.

    installed: also raise MissingExtraError where the packages of the one that the job names are not installed, and
    JobError where it needs a GPU and none is visible.
    """
    if settings.method == "pca" and settings.backend != "auto":
        raise JobError(
            f"project.backend {settings.backend} does not go with project.method pca: it computes UMAP",
            hint="Leave project.backend out.",
        )
    if settings.method == "umap" and settings.min_dist > SPREAD:
        raise JobError(
            f"project.min_dist is {settings.min_dist:g}; UMAP allows at most its spread, which is {SPREAD:g}",
            hint="Set project.min_dist to at most 1.",
        )
    if not installed or settings.method == "pca":
        return
    name = "umap-learn" if settings.backend == "auto" else settings.backend
    for package in NEEDS.get(name, ()):
        if importlib.util.find_spec(package) is None:
            extra = PROJECTIONS[name][1]
            raise MissingExtraError(
                f"projection {name} needs {package}, which is not installed", hint=f"pip install 'drillcore[{extra}]'"
            )
    if name == "cuml" and not _gpu_visible():
        raise JobError("project.backend cuml needs a GPU, and none is visible", hint="Use auto or umap-learn.")


def choose_projection(settings: Project, num_sentences: int) -> tuple[str, str]:
    """Name of the projection for a layer of `num_sentences`, and why it was chosen.

    Raises JobError where UMAP would refuse the settings.

    >>> choose_projection(Project(), 50)
    ('umap-learn', 'fewer than 2,000 sentences')
    """
    check_projection(settings)
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
    except Exception:  # no driver, no device, a broken installation: in each case there is no GPU to use
        return False


def load_projection(name: str) -> Projection:
    """A projection by its name in `PROJECTIONS`.

    Raises JobError for an unknown name, MissingExtraError, with the remedy, where its packages are not installed.
    """
    projection: Projection = load_by_name("projection", name, PROJECTIONS)()
    return projection
