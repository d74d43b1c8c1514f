"""What a job makes of the states, and where it runs: measures, projections, pictures, executors."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from drillcore.job.choices import OneOf
from drillcore.job.common import MOST, Auto, Closed, Seed
from drillcore.system.tables import EXECUTORS, MEASURES, PROJECTION_BACKENDS, PROJECTION_METHODS


class Measure(Closed):
    """How well each layer separates the labels, in the raw space."""

    metrics: Literal["all"] | tuple[Annotated[str, OneOf(MEASURES)], ...] = "all"
    """Names of the measures."""
    standardise: Literal["none", "center", "zscore"] = "center"
    """What is done to the states before the probe and the neighbours."""
    folds: Annotated[int, Field(ge=2, le=100)] = 5
    """Folds of the cross-validated probe."""
    permutations: Annotated[int, Field(ge=0, le=10**6)] = 1000
    """Label permutations of the null; one set shared by all layers."""
    sample: Annotated[int, Field(ge=20, le=MOST)] = 10_000
    """Sentences at most for the measures that are quadratic in them."""
    seed: Seed = 0
    """Seed of folds, permutations and samples."""

    @field_validator("metrics")
    @classmethod
    def _metrics(cls, value: Any) -> Any:
        if value == ():
            raise ValueError("names no measure")
        return value


class Project(Closed):
    """How each layer is brought to two dimensions; UMAP's parameters under the library's own names."""

    method: Annotated[str, OneOf(PROJECTION_METHODS)] = "umap"
    """umap or pca."""
    backend: Annotated[str, OneOf(PROJECTION_BACKENDS)] = "auto"
    """auto: cuML where it is installed, a GPU is visible and the layer has at least 2,000 sentences."""
    n_neighbors: Annotated[int, Field(ge=2, le=MOST)] = 15
    """UMAP's n_neighbors; n - 1 where there are fewer sentences."""
    min_dist: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.1
    """UMAP's min_dist."""
    metric: Literal["euclidean", "cosine"] = "euclidean"
    """Distance between hidden states."""
    n_epochs: Auto | Annotated[int, Field(ge=1, le=10**6)] = "auto"
    """UMAP's n_epochs; auto is the library's own choice."""
    fit: Literal["each", "joint"] = "each"
    """each: a space for each dataset; joint: all datasets of a model in one space."""
    align: bool = True
    """Turn each layer onto the layer before it (orthogonal Procrustes)."""
    seed: Seed = 0
    """Seed of the projection."""


class Render(Closed):
    """How pictures are drawn."""

    panel_px: Annotated[int, Field(ge=150, le=2000)] = 200
    """Width and height of a panel, in pixels."""
    layers: (
        Literal["all", "every"]
        | Annotated[int, Field(ge=1, le=MOST)]
        | tuple[Annotated[int, Field(ge=0, le=MOST)], ...]
    ) = "all"
    """all; a number N for every N-th layer; or a list."""
    align_depth: bool = False
    """Set models of different depths side by side by relative depth."""
    color: str = "label"
    """Coordinate that colours the points."""
    outliers: Literal["edge", "inside"] = "edge"
    """edge: a few sentences far away from all others (1 % at most) are triangles at the panel's edge, where all others
    are then shown at least twice as large; inside: panels hold every sentence."""
    columns: Literal["auto", "all"] | Annotated[int, Field(ge=1, le=MOST)] = "auto"
    """Panels side by side in a grid: auto wraps long rows, towards the shape of a page; all: one strip; or a number."""
    tile_px: Annotated[int, Field(ge=1000, le=2**31 - 1)] = 16_384
    """A grid wider or higher than this is written as tiles."""


class Run(Closed):
    """Where the work runs."""

    executor: Annotated[str, OneOf(EXECUTORS)] = "local"
    """local: this process; ray: a Ray cluster."""
    address: str | None = None
    """Address of a running Ray cluster; none starts one for the run."""
    retries: Annotated[int, Field(ge=0, le=1000)] = 2
    """How often a failed block is retried."""
    audit: Auto | Annotated[int, Field(ge=0, le=MOST)] = "auto"
    """Seeded sentences of each dataset that are read back after extraction and compared with the sentence computed
    alone, beside the longest one and those at the ends of shards and blocks; 0: no audit, and no canaries."""

    @model_validator(mode="after")
    def _address_of_ray(self) -> Run:
        if self.address is not None and self.executor != "ray":
            raise ValueError("address: is that of a Ray cluster, and belongs to `executor: ray`")
        return self
