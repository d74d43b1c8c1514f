"""The job: what to extract, measure, project and draw, as frozen, closed pydantic models.

Owns the fields, their units, meanings and defaults. Reading a job file and its errors is `file`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from drillcore.job.choices import ON_OFF, OneOf
from drillcore.system.bounds import real_path
from drillcore.system.tables import BACKENDS, EXECUTORS, MEASURES, PROJECTION_BACKENDS, PROJECTION_METHODS

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=@-]*")
Auto = Literal["auto"]
Name = Annotated[str, Field(max_length=200)]
# What scikit-learn and UMAP take.
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
# A number of sentences or of a layer: more than there can be, and exact in JSON, the store and NumPy.
MOST = 2**53


class Closed(BaseModel):
    """A part of a job: frozen, with no entries but its fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, use_attribute_docstrings=True)

    @field_validator("*")
    @classmethod
    def _storable(cls, value: Any) -> Any:
        """Refuse characters that YAML can write and neither a path nor a store can hold."""
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str) and ("\0" in text or any("\ud800" <= c <= "\udfff" for c in text)):
                raise ValueError("holds a NUL or half of a surrogate pair")
        return value


def expand(path: str) -> Path:
    """A path with ~ replaced by the home folder, where that is known."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # the user does not exist
        return Path(path)


def in_place(path: Path) -> Path:
    """An absolute path that keeps its last name: a symbolic link's own name says what it is, not its target's.

    Hubs and data versioning keep files under their checksums and give the names to links.

    >>> in_place(Path("/tmp/../texts/a.jsonl")).as_posix()
    '/texts/a.jsonl'
    """
    return real_path(path) if path.name in ("", "..") else real_path(path.parent) / path.name


def check_name(value: str) -> str:
    """Return a name that can be a group of the store; raises ValueError for any other.

    >>> check_name("smollm2-135m")
    'smollm2-135m'
    """
    if not NAME.fullmatch(value):
        raise ValueError("may hold letters, digits and . _ + = @ -, and begins with a letter or digit")
    return value


class Model(Closed):
    """A causal decoder."""

    id: Name
    """Hub id, local directory (relative to the job file, beginning with . or /), or demo/smollm2-135m-instruct."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    as_: Name | None = Field(default=None, alias="as")
    """Name of the model's group in the store and in pictures; by default the id with / written --."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] | None = None
    """Overrides extract.dtype for this model."""
    device_map: str | None = None
    """Passed to transformers, for a model larger than one device."""
    trust_remote_code: bool = False
    """Run code that the model's repository ships. Off unless you trust it."""
    random_weights: bool = False
    """Keep the architecture and draw the weights at random (seed 0): a control."""

    @field_validator("as_")
    @classmethod
    def _name(cls, value: str | None) -> str | None:
        return None if value is None else check_name(value)

    @property
    def group(self) -> str:
        """Name of the model's group in the store."""
        if self.as_ is not None:
            return self.as_
        name = self.id.rstrip("/").rsplit("/", 1)[-1] if is_local(self.id) else self.id.replace("/", "--")
        return name + ("--random" if self.random_weights else "")


def is_local(model_id: str) -> bool:
    """Whether a model id names a directory rather than a hub repository.

    >>> is_local("./my-model"), is_local("HuggingFaceTB/SmolLM2-135M")
    (True, False)
    """
    return model_id.startswith((".", "/", "~"))


class Dataset(Closed):
    """Sentences and what is known of each."""

    name: Name
    """Name of the dataset's group in the store."""
    path: str
    """JSONL, CSV, TSV, Parquet or plain text (.gz and .zst too), relative to the job file."""
    text: str = "text"
    """Field that holds the sentence."""
    label: str | None = "auto"
    """Field that holds the label; auto is `label` where the rows have it, null ignores it."""
    unlabelled: Literal["error", "keep", "drop"] = "error"
    """Rows whose label is null, empty or absent: stop, keep them (grey, left out of measures), or leave them out."""
    missing: tuple[str, ...] = ()
    """Values that stand for none, such as NA or nan, in labels and in kept numbers; null and empty always do."""
    group: str | None = None
    """Field whose values must not be split between the folds of a measure."""
    expected_next: str | None = None
    """Field that holds the text expected next, with its leading space; its first token after the sentence counts."""
    candidates: tuple[str, ...] = ()
    """Continuations, with their leading spaces, whose exact log-probabilities are wanted."""
    keep: tuple[str, ...] = ()
    """Further fields to keep as coordinates."""
    limit: Annotated[int, Field(ge=1, le=MOST)] | None = None
    """Take the first so many sentences."""
    template: Annotated[str, Field(max_length=10**6)] | None = None
    """Text around each sentence, holding {text}; or `chat` for the tokenizer's own chat template."""
    chat: dict[str, str | bool | int | float] = {}
    """Arguments of the chat template, such as enable_thinking: false or date_string: 26 Jul 2024."""
    cannot_follow: Literal["error", "skip"] = "error"
    """Where the tokens of expected_next or of a candidate cannot follow a sentence's own: stop, or leave them out."""

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        return check_name(value)

    @property
    def label_is_named(self) -> bool:
        """Whether the job names the field of the labels, so that it must be there."""
        return self.label not in (None, "auto")

    @property
    def label_field(self) -> str | None:
        """The field that labels come from if rows have it; None where the job wants none."""
        return (None if self.text == "label" else "label") if self.label == "auto" else self.label

    @field_validator("candidates")
    @classmethod
    def _candidates(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(value):
            raise ValueError("names an empty continuation")
        if len(set(value)) != len(value):
            raise ValueError("names a continuation twice")
        return value

    @field_validator("template")
    @classmethod
    def _template(cls, value: str | None) -> str | None:
        if value is not None and value != "chat" and value.count("{text}") != 1:
            raise ValueError("must hold {text} exactly once, or be `chat`")
        return value

    @model_validator(mode="after")
    def _chat_needs_its_template(self) -> Dataset:
        if self.chat and self.template != "chat":
            raise ValueError("chat holds arguments of the chat template: it needs `template: chat`")
        return self


class Extract(Closed):
    """How hidden states are taken."""

    backend: Annotated[str, OneOf(BACKENDS)] = "transformers"
    """Engine that runs the model; auto measures transformers and vllm, where installed, and takes the faster one."""
    layers: Literal["all", "hf"] | tuple[Annotated[int, Field(ge=0, le=MOST)], ...] = "all"
    """all = 0..L+1; hf = 0..L-1 and L+1, as transformers returns them; or a list of layer numbers."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type the model computes in: auto is bfloat16 on CUDA, float32 on CPU."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    store_dtype: Literal["float32", "float16"] = "float32"
    """Type of the stored hidden states."""
    layout: Literal["auto", "packed", "padded", "equal"] = "auto"
    """Packs share prefixes exactly; auto takes padded batches only where a model cannot take packs, and batches of
    sentences of equal length, without padding, only where it cannot take those."""
    batch_tokens: Auto | Annotated[int, Field(ge=1, le=2**22)] = "auto"
    """Nodes computed in one forward pass."""
    shard_sentences: Auto | Annotated[int, Field(ge=1, le=2**20)] = "auto"
    """Sentences in one shard of the store; a power of two."""
    block_sentences: Auto | Annotated[int, Field(ge=1, le=MOST)] = "auto"
    """Sentences whose packs are built together; a multiple of the shard."""
    too_long: Literal["error", "truncate"] = "error"
    """What to do with a sentence beyond the model's context: stop, or keep its first tokens and count it."""
    special_tokens: Literal["auto", "none"] = "auto"
    """auto: as the tokenizer adds them."""
    attention: Literal["auto", "dense", "flex"] = "auto"
    """How packs attend: auto is flex (FlexAttention, block masks) on CUDA; on a CPU it adds a mask where packs are
    narrow, and leaves out what a query does not see where they are wide. dense adds a mask everywhere."""
    compile: Annotated[Literal["auto", "on", "off"], ON_OFF] = "auto"
    """Compile decoder layers (transformers): auto on CUDA. What cannot be compiled runs as it is, with a note."""
    tensor_parallel: Annotated[int, Field(ge=1, le=1024)] = 1
    """Devices that share one model (vllm)."""
    threads: Auto | Annotated[int, Field(ge=1, le=1024)] = "auto"
    """CPU threads of the forward pass. Bits differ between numbers of threads; auto is this machine's cores."""

    @field_validator("shard_sentences")
    @classmethod
    def _power(cls, value: Any) -> Any:
        if value != "auto" and value & (value - 1):
            raise ValueError("must be a power of two")
        return value

    @field_validator("layers")
    @classmethod
    def _layers(cls, value: Any) -> Any:
        if isinstance(value, tuple):
            if not value:
                raise ValueError("names no layer")
            if len(set(value)) != len(value):
                raise ValueError("names a layer twice")
            return tuple(sorted(value))
        return value

    @model_validator(mode="after")
    def _agrees(self) -> Extract:
        shard, block = self.shard_sentences, self.block_sentences
        if shard != "auto" and block != "auto" and block % shard:
            raise ValueError("block_sentences must be a multiple of shard_sentences")
        if self.compile == "on" and (self.attention == "dense" or self.layout not in ("auto", "packed")):
            raise ValueError("compile: on needs packs, and attention: flex or auto")
        return self


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


class Job(Closed):
    """One run: models × datasets, from sentences to pictures."""

    name: Name = "job"
    """Name of the job; by default the job file's stem."""
    store: str | None = None
    """Path or s3:// address of the store; by default runs/<job-stem>.zarr. Paths are relative to the job file."""
    models: Annotated[tuple[Model, ...], Field(min_length=1)]
    datasets: Annotated[tuple[Dataset, ...], Field(min_length=1)]
    extract: Extract = Extract()
    measure: Measure = Measure()
    project: Project = Project()
    render: Render = Render()
    run: Run = Run()

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        value = dict(value)
        if isinstance(value.get("models"), list):
            value["models"] = [{"id": m} if isinstance(m, str) else m for m in value["models"]]
        if isinstance(value.get("datasets"), dict):
            named = value["datasets"].items()
            value["datasets"] = [{**(d if isinstance(d, dict) else {"path": d}), "name": str(n)} for n, d in named]
        return value

    @model_validator(mode="after")
    def _distinct(self) -> Job:
        for kind, names in (
            ("models", [m.group for m in self.models]),
            ("datasets", [d.name for d in self.datasets]),
        ):
            twice = sorted({n for n in names if names.count(n) > 1})
            if twice:
                remedy = "give one of them another name with `as:`" if kind == "models" else "names must differ"
                raise ValueError(f"{kind}: {', '.join(twice)} is named twice; {remedy}")
        return self


class LoadedJob(Closed):
    """A job together with where it was read from."""

    job: Job
    base: Path
    """Folder that relative paths start from."""
    source: str
    """The job file, as the user named it."""

    @property
    def store(self) -> str:
        """Path or s3:// address of the store."""
        named = self.job.store
        if named is None:
            return str(self.base.absolute() / self._default)
        return named if named.startswith("s3://") else str(in_place(self.base / expand(named)))

    @property
    def former_store(self) -> str | None:
        """Where the default store was while it was relative to the working directory; None where that changes nothing.

        A job that names its store has no default.
        """
        former = str(Path.cwd() / self._default)
        return None if self.job.store is not None or former == self.store else former

    @property
    def _default(self) -> Path:
        return Path("runs") / f"{Path(self.source).stem}.zarr"

    def path(self, dataset: Dataset) -> Path:
        """Where a dataset's file is."""
        return in_place(self.base / expand(dataset.path))
