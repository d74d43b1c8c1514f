"""The fields of a job as Python code gives them, for editors and mypy; `job/fields.py` says what each means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, Literal, TypedDict

AnyPath = str | PathLike[str]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Switch = Literal["auto", "on", "off"]
# A position: its short form, or a mapping such as {"last": 4} or {"span": ["from", "to"], "name": "entity"}.
Place = str | Mapping[str, Any]

_As = TypedDict("_As", {"as": str}, total=False)


class ModelFields(_As, total=False):
    """A model: `id`, and what else is said of it."""

    id: AnyPath
    tokenizer: AnyPath
    revision: str
    dtype: Dtype
    device_map: str
    offload: bool
    adapter: AnyPath
    adapter_revision: str
    merge_adapter: bool
    gguf_file: str
    quantization: str | Mapping[str, Any]
    trust_remote_code: bool
    random_weights: bool


class DatasetFields(TypedDict, total=False):
    """A dataset: `path`, its `name` where datasets are a list, and what is known of its rows."""

    name: str
    path: AnyPath | Sequence[AnyPath]
    revision: str
    text: str
    label: str | None
    label_type: Literal["auto", "classes", "number"]
    labels: Sequence[str]
    unlabelled: Literal["error", "keep", "drop"]
    missing: Sequence[str]
    group: str
    split: str | Mapping[str, str]
    expected_next: str
    candidates: Sequence[str]
    keep: Sequence[str]
    limit: int
    delimiter: str
    encoding: str
    empty: Literal["error", "drop"]
    template: str
    templates: Mapping[str, str]
    chat: Mapping[str, str | bool | int | float]
    messages: str
    system: str
    add_generation_prompt: bool
    positions: Sequence[Place]
    branches: Mapping[str, str]
    cannot_follow: Literal["error", "skip"]


class ExtractFields(TypedDict, total=False):
    """How hidden states are taken."""

    backend: str
    layers: Literal["all", "hf"] | Sequence[int]
    positions: Sequence[Place]
    dtype: Dtype
    device: str
    store_dtype: Literal["float32", "float16"]
    layout: Literal["auto", "packed", "padded", "equal"]
    batch_tokens: Literal["auto"] | int
    shard_sentences: Literal["auto"] | int
    block_sentences: Literal["auto"] | int
    too_long: Literal["error", "truncate"]
    special_tokens: Literal["auto", "none"]
    attention: Literal["auto", "dense", "flex"]
    compile: Switch
    merge: Switch
    weights: Literal["resident", "streamed", "auto"]
    tensor_parallel: int
    threads: Literal["auto"] | int


class MeasureFields(TypedDict, total=False):
    """How well each layer separates the labels."""

    metrics: Literal["all"] | Sequence[str]
    standardise: Literal["none", "center", "zscore"]
    folds: int
    permutations: int
    sample: int
    seed: int


class ProjectFields(TypedDict, total=False):
    """How each layer is brought to two dimensions."""

    method: Literal["umap", "pca"]
    backend: str
    n_neighbors: int
    min_dist: float
    metric: Literal["euclidean", "cosine"]
    n_epochs: Literal["auto"] | int
    fit: Literal["each", "joint"]
    align: bool
    seed: int


class RenderFields(TypedDict, total=False):
    """How pictures are drawn."""

    panel_px: int
    outliers: Literal["edge", "inside"]
    columns: Literal["auto", "all"] | int
    layers: Literal["all", "every"] | int | Sequence[int]
    align_depth: bool
    color: str
    tile_px: int


class RunFields(TypedDict, total=False):
    """Where the work runs."""

    executor: str
    address: str
    retries: int
    audit: Literal["auto"] | int
