"""One layer of a model and dataset as a file for notebooks and other viewers.

Shape legend: N sentences, H hidden size, B sentences of a piece, K neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from numpy.typing import NDArray

from drillcore.api.page import table
from drillcore.api.probes import write_probe
from drillcore.api.stores import AnyStore, find_group, num_sentences, said_of_rows
from drillcore.errors import CommitError, InputError, MissingExtraError, StoreError
from drillcore.neighbours import EXACT_UP_TO, build
from drillcore.runtime.results import columns_of_labels, further_label, result_facts
from drillcore.store.arrays import PROJECTIONS
from drillcore.store.attributes import BEGUN, CONTENTS, attributes_of
from drillcore.store.freshness import stale_results
from drillcore.store.layout import array_of, read_array
from drillcore.store.reader import Coordinate, num_rows, read_layer
from drillcore.store.states import StatesReader
from drillcore.system.bounds import problem_with_output
from drillcore.system.files import replacing

PIECE_BYTES = 64 * 2**20
NEIGHBORS = 15
RESERVED = ("sentence", "hidden_state", "projection_x", "projection_y", "neighbors")


@dataclass(frozen=True)
class Layer:
    """The layer to export. group: its model and dataset. slot: its position in the store. name: such as `block_3`.

    every: all layers are meant, and `slot` is that of the first. label: a further label whose probe is written; "" is
    the main one.
    """

    group: zarr.Group
    slot: int
    name: str
    every: bool = False
    label: str = ""

    @property
    def num_sentences(self) -> int:
        """Number of sentences."""
        return num_rows(self.group)

    def columns(self, rows: slice) -> dict[str, NDArray[Any]]:
        """Coordinates of some sentences, `_` after names that the export itself uses, and next-token quantities."""
        number = "row" if "row_size" in self.group else "sentence"
        columns: dict[str, NDArray[Any]] = {number: np.arange(rows.start, rows.stop)}
        names = [name for name, _ in attributes_of(self.group).get("columns", [])]
        labels = {"label", *columns_of_labels(self.group).values()}
        for name in [*names, *(["sentence"] if number == "row" else [])]:
            values = Coordinate(self.group, name)[rows]
            column = f"{name}_" if name in RESERVED and name != "sentence" else name
            # The store writes no label as an empty one; a reader of the file must not take that for a class.
            is_class = name in labels and values.dtype.kind != "f"
            columns[column] = np.array([v or None for v in values], object) if is_class else values
        return columns | self._quantities(rows)

    def _quantities(self, rows: slice) -> dict[str, NDArray[Any]]:
        """Log-probability, rank and margin of the expected next token at this layer, where they were measured."""
        if not self._has_quantities:
            return {}
        names = read_array(self.group, "quantity")
        values_BQ = np.asarray(array_of(self.group, "next_token")[rows, self.slot])
        return {f"next_token_{name}": values_BQ[:, q] for q, name in enumerate(names)}

    @cached_property
    def _has_quantities(self) -> bool:
        return result_facts(self.group, "next_token") is not None

    @cached_property
    def projection(self) -> str | None:
        """Name of the stored projection, or None."""
        return next((name for name in PROJECTIONS if result_facts(self.group, name) is not None), None)

    def points(self, rows: slice) -> dict[str, NDArray[Any]]:
        """Coordinates of some sentences in the projection; empty where the layer has none."""
        if self.projection is None:
            return {}
        xy_B2 = np.asarray(array_of(self.group, self.projection)[self.slot, rows])
        return {"projection_x": xy_B2[:, 0], "projection_y": xy_B2[:, 1]}


@dataclass(frozen=True)
class Exported:
    """A layer that was written. path: the file; format: one of `FORMATS`. sentences, rows: how many; as
    many of both unless a sentence has several. advice: what to do with the file, or ""."""

    path: Path
    format: str
    group: str
    layer: int
    layer_name: str
    sentences: int
    advice: str = ""
    rows: int = 0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "path": str(self.path)}

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"{self.path}: {said_of_rows(self.sentences, self.rows)} of {self.group}, layer {self.layer_name}"

    def _repr_html_(self) -> str:
        return table(repr(self), (), (), [self.advice] if self.advice else [])


def export(
    store: AnyStore,
    *,
    layer: int | str | None = None,
    to: str,
    out: str | PathLike[str],
    group: str | None = None,
    label: str | None = None,
) -> Exported:
    """Write one layer with its sentences as a file for notebooks and other viewers, replacing what was there.

    layer: its number or name; -1 is the last one, where it is stored. to: parquet, npy, anndata, embedding-atlas or
    probe: the probe of a layer, or of all (`layer="all"`, the default there), as safetensors tensors for raw states.
    group: `model/dataset`, required where the store has several. label: one of several labels, whose probe is written;
    by default the main one. Raises InputError where there is no such label or the file's name ends as one of another
    format, StoreError where something is missing or incomplete, MissingExtraError where a package is missing,
    CommitError where the file cannot be written.

    >>> written = drillcore.export("runs/job.zarr", layer="block_1", to="npy", out="block_1.npy")
    >>> written.sentences, written.layer
    (12, 1)
    """
    path = Path(out)
    if to not in FORMATS:
        raise StoreError(f"there is no format {to}", hint=f"One of {', '.join(FORMATS)}.")
    other = next((name for name, form in FORMATS.items() if path.suffix.lower() == form.ending), to)
    if FORMATS[other].ending != FORMATS[to].ending:
        raise InputError(
            f"{path} ends as a file of the format {other}, and the format asked for is {to}",
            hint=f"Name a file that ends in {FORMATS[to].ending}, or ask for {other}.",
        )
    problem = problem_with_output(path)
    if problem:
        raise InputError(f"{path} {problem}", hint="Name another file.")
    if label is not None and not FORMATS[to].is_of_label:
        raise InputError(f"a file of the format {to} holds all labels, and one is named", hint="Leave --label out.")
    if layer is None and not FORMATS[to].takes_all:
        raise InputError(f"a file of the format {to} holds one layer, and none is named", hint="Name it: --layer 3.")
    wanted = "all" if layer is None else str(layer)
    found = _whole(find_group(store, group))
    chosen = _find_layer(found, wanted, every=FORMATS[to].takes_all and wanted == "all")
    chosen = replace(chosen, label=further_label(found, label))
    _check(to, chosen)
    try:
        with replacing(path) as scratch:
            advice = FORMATS[to].write(chosen, scratch)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise CommitError(f"{path} could not be written: {why}", hint="Name another file.") from None
    number = int(read_array(chosen.group, "layer")[chosen.slot])
    sentences, rows = num_sentences(chosen.group), chosen.num_sentences
    return Exported(path, to, chosen.group.path, number, chosen.name, sentences, advice.format(path=path), rows)


def _check(kind: str, layer: Layer) -> None:
    """Raise for what the format needs and is missing."""
    for package in FORMATS[kind].packages:
        if find_spec(package) is None:
            raise MissingExtraError(
                f"the format {kind} needs {package}, which is not installed",
                hint=f"pip install {package}"
                + (
                    " (into an environment of its own where it would change pandas)."
                    if package != "safetensors"
                    else "."
                ),
            )
    why = stale_results(layer.group) if FORMATS[kind].has_results else {}
    projections = [n for n in PROJECTIONS if n in why] if layer.projection is None else []
    for name in [*projections, *(["next_token"] if "next_token" in why else [])]:
        stage = "predict" if name == "next_token" else "project"
        raise StoreError(
            f"{layer.group.path}: {name} is stale: {why[name]}",
            hint=f"Run `drillcore {stage}` on its job first, or export to npy, which holds states alone.",
        )
    if FORMATS[kind].needs_projection and layer.projection is None:
        raise StoreError(f"{layer.group.path} has no projection", hint="Run `drillcore project` first.")


def _whole(group: zarr.Group) -> zarr.Group:
    """The group; raises StoreError where not all of its shards are committed, or its coordinates are being written."""
    prints = read_array(group, "shard_fingerprint")
    attributes = attributes_of(group)
    committed = int(np.count_nonzero(prints.any(axis=1))) - len(attributes.get(BEGUN, {}))
    if committed < len(prints):
        raise StoreError(
            f"{group.path}: {committed} of {len(prints)} shards are committed", hint="Finish the run first."
        )
    recorded = attributes.get(CONTENTS)
    if recorded is not None and any(name not in recorded for name, _ in attributes.get("columns", [])):
        raise StoreError(f"{group.path}: its texts and labels are being written", hint="Finish the run first.")
    return group


def _find_layer(group: zarr.Group, wanted: str, *, every: bool = False) -> Layer:
    numbers, names = read_array(group, "layer").tolist(), [str(n) for n in read_array(group, "layer_name")]
    if every:
        return Layer(group, 0, "all", every=True)
    # From the end of the model's layers, which are known where the last of them is stored.
    end = numbers[-1] + 1 if names[-1] == "final_norm" else None
    for slot, (number, name) in enumerate(zip(numbers, names, strict=True)):
        if wanted in (str(number), name) or (end is not None and wanted == str(number - end)):
            return Layer(group, slot, name)
    hint = f"Its layers are {', '.join(map(str, numbers))} ({names[0]} to {names[-1]})."
    raise StoreError(f"{group.path} has no layer {wanted}", hint=hint)


def _pieces(layer: Layer) -> Iterator[slice]:
    """Ranges of sentences, whole chunks each, whose float32 states take at most `PIECE_BYTES`."""
    reader = StatesReader(layer.group)
    chunk = reader.shape.chunk
    step = max(1, PIECE_BYTES // (4 * reader.shape.hidden_size * chunk)) * chunk
    for start in range(0, layer.num_sentences, step):
        yield slice(start, min(start + step, layer.num_sentences))


def _states(layer: Layer, rows: slice) -> NDArray[np.float32]:
    states_B1H = StatesReader(layer.group).read(np.arange(rows.start, rows.stop), np.array([layer.slot]))
    return np.ascontiguousarray(states_B1H[:, 0], np.float32)


def _write_npy(layer: Layer, path: Path) -> str:
    hidden_size = array_of(layer.group, "hidden_states").shape[2]
    out_NH = np.lib.format.open_memmap(path, "w+", np.float32, (layer.num_sentences, hidden_size))
    for rows in _pieces(layer):
        out_NH[rows] = _states(layer, rows)
    out_NH.flush()
    return ""


def _write_parquet(layer: Layer, path: Path) -> str:
    def table(rows: slice) -> pa.Table:
        states_BH = _states(layer, rows)
        states = pa.FixedSizeListArray.from_arrays(pa.array(states_BH.ravel()), states_BH.shape[1])
        return pa.table({**layer.columns(rows), "hidden_state": states, **layer.points(rows)})

    _write_tables(path, (table(rows) for rows in _pieces(layer)))
    return ""


def _write_tables(path: Path, tables: Iterator[pa.Table]) -> None:
    first = next(tables)
    with pq.ParquetWriter(path, first.schema, compression="zstd") as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(table)


def _write_atlas(layer: Layer, path: Path) -> str:
    rows = slice(0, layer.num_sentences)
    columns: dict[str, Any] = {**layer.columns(rows), **layer.points(rows)}
    advice = "Open it with: embedding-atlas {path} --text text --x projection_x --y projection_y"
    if 1 < layer.num_sentences <= EXACT_UP_TO:
        columns["neighbors"] = _neighbors(layer)
        advice += " --neighbors neighbors"
    _write_tables(path, iter([pa.table(columns)]))
    return advice


def _neighbors(layer: Layer) -> pa.StructArray:
    """Nearest sentences in the raw space, in the structure that embedding-atlas reads."""
    graph = build(read_layer(layer.group, layer.slot), NEIGHBORS + 1, "euclidean", 0)
    count = graph.indices_NK.shape[1] - 1

    def lists(values_NK: NDArray[Any]) -> pa.ListArray:
        offsets = pa.array(np.arange(0, len(values_NK) * count + 1, count, dtype=np.int32))
        return pa.ListArray.from_arrays(offsets, pa.array(values_NK[:, 1:].ravel()))

    return pa.StructArray.from_arrays([lists(graph.indices_NK), lists(graph.distances_NK)], ["ids", "distances"])


def _write_anndata(layer: Layer, path: Path) -> str:
    import anndata
    import pandas as pd

    rows = slice(0, layer.num_sentences)
    observed = pd.DataFrame(layer.columns(rows))
    observed.index = observed.pop("sentence").astype(str)
    for name in {"label", *columns_of_labels(layer.group).values()}:
        if name in observed and observed[name].dtype.kind != "f":
            observed[name] = pd.Categorical(observed[name])  # None is no category
    annotated = anndata.AnnData(X=read_layer(layer.group, layer.slot), obs=observed)
    if layer.projection is not None:
        annotated.obsm[f"X_{layer.projection}"] = np.stack(list(layer.points(rows).values()), axis=1)
    annotated.uns["drillcore"] = {"group": layer.group.path, "layer": layer.name}
    annotated.write_h5ad(path, compression="gzip")
    return ""


@dataclass(frozen=True)
class Format:
    """One file format.

    write: writes a layer to a path, and returns advice for the user (with `{path}`) or "". packages: those that it
    imports beyond what drillcore requires. has_results: whether it holds results of later stages too. ending: of the
    names of its files. takes_all: whether it can hold all layers. is_of_label: whether it is of one label.
    """

    write: Callable[[Layer, Path], str]
    packages: tuple[str, ...] = ()
    needs_projection: bool = False
    has_results: bool = True
    ending: str = ".parquet"
    takes_all: bool = False
    is_of_label: bool = False


FORMATS = {
    "parquet": Format(_write_parquet),
    "npy": Format(_write_npy, has_results=False, ending=".npy"),
    "anndata": Format(_write_anndata, packages=("anndata", "pandas"), ending=".h5ad"),
    "embedding-atlas": Format(_write_atlas, needs_projection=True),
    "probe": Format(
        write_probe,
        packages=("safetensors",),
        has_results=False,
        ending=".safetensors",
        takes_all=True,
        is_of_label=True,
    ),
}
