"""The list of arrays: everything that drillcore writes into the group of a model and dataset.

A new array is a new row here. The names that a user's column may not take, the checks of `verify`, and what `show` and
`export` look for are derived from these rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from numpy.typing import NDArray

from drillcore.errors import TextError
from drillcore.job.inputs import Dataset

Writer = Literal["extract", "columns", "measure", "predict", "project"]


@dataclass(frozen=True)
class ArraySpec:
    """One array of a group.

    dims: names of its dimensions. dtype: as Zarr names it; `store` for the job's `extract.store_dtype`. writers: who
    writes it; the first three write whenever they run, the others as a result with a record of its inputs.
    headline: named by `drillcore show`; the other arrays come with one of these. internal: by which the store proves
    what it holds; left out of the tree that users open. by_label: whether there is one of each further label too, whose
    name, and the dimensions that are arrays of this kind, end in `~LABEL`.
    """

    name: str
    dims: tuple[str, ...]
    dtype: str
    writers: tuple[Writer, ...]
    headline: bool = False
    internal: bool = False
    by_label: bool = False

    @property
    def is_result(self) -> bool:
        """Whether a stage after extraction writes it."""
        return not {"extract", "columns"}.intersection(self.writers)

    @property
    def is_coordinate(self) -> bool:
        """Whether it names the places along a dimension of its own name."""
        return self.dims == (self.name,)

    def with_rows(self) -> ArraySpec:
        """The same array of a group whose sentences have any number of rows."""
        return replace(self, dims=tuple("row" if dim == "sentence" else dim for dim in self.dims))

    def check(self, values: NDArray[Any]) -> None:
        """Raise ValueError where values are not of this array's number of dimensions and dtype."""
        dtype = dtype_name(values)
        if values.ndim != len(self.dims) or dtype != self.dtype:
            raise ValueError(
                f"{self.name} has {len(self.dims)} dimensions {self.dims} of {self.dtype}; "
                f"the values have {values.ndim} of {dtype}"
            )


def dtype_name(values: NDArray[Any]) -> str:
    """The dtype of values as Zarr names it; every kind of text is `string`.

    >>> import numpy as np
    >>> dtype_name(np.array(["x", "y"])), dtype_name(np.zeros(3, np.float32))
    ('string', 'float32')
    """
    return "string" if values.dtype.kind in "UOT" else str(values.dtype)


_ROWS = (
    ArraySpec("hidden_states", ("sentence", "layer", "hidden"), "store", ("extract",)),
    ArraySpec("layer_absmax", ("shard", "layer"), "float32", ("extract",), internal=True),
    ArraySpec("layer", ("layer",), "int64", ("extract",)),
    ArraySpec("layer_name", ("layer",), "string", ("extract",)),
    ArraySpec("shard_planned", ("shard", "digest"), "uint8", ("extract",), internal=True),
    ArraySpec("shard_record", ("shard",), "string", ("extract",), internal=True),
    ArraySpec("shard_fingerprint", ("shard", "digest"), "uint8", ("extract",), internal=True),
    ArraySpec("sentence", ("sentence",), "int64", ("columns",)),
    ArraySpec("text", ("sentence",), "string", ("columns",)),
    ArraySpec("label", ("sentence",), "string", ("columns",)),
    ArraySpec("group", ("sentence",), "string", ("columns",)),
    ArraySpec("expected_next", ("sentence",), "string", ("columns",)),
    ArraySpec("n_tokens", ("sentence",), "int32", ("columns",)),
    ArraySpec("last_token_id", ("sentence",), "int32", ("columns",)),
    ArraySpec("row_id", ("sentence",), "string", ("columns",), internal=True),
    ArraySpec("metric", ("metric",), "string", ("measure",), by_label=True),
    ArraySpec("bound", ("bound",), "string", ("measure", "predict")),
    ArraySpec("separation", ("layer", "metric", "bound"), "float32", ("measure",), headline=True, by_label=True),
    ArraySpec("layer_cka", ("layer", "layer_2"), "float32", ("measure",), headline=True),
    ArraySpec("nearest", ("layer", "sentence", "neighbour"), "int32", ("measure",)),
    ArraySpec("probe_label", ("probe_label",), "string", ("measure",), by_label=True),
    ArraySpec("probe_weight", ("layer", "probe_label", "hidden"), "float32", ("measure",), by_label=True),
    ArraySpec("probe_offset", ("layer", "probe_label"), "float32", ("measure",), by_label=True),
    ArraySpec("probe_decision", ("layer", "sentence"), "int16", ("measure",), by_label=True),
    ArraySpec("quantity", ("quantity",), "string", ("predict",)),
    ArraySpec("next_token", ("sentence", "layer", "quantity"), "float32", ("predict",), headline=True),
    ArraySpec("prediction_metric", ("prediction_metric",), "string", ("predict",)),
    ArraySpec("prediction", ("layer", "prediction_metric", "bound"), "float32", ("predict",)),
    ArraySpec("candidate", ("candidate",), "string", ("predict",)),
    ArraySpec("candidate_logprob", ("sentence", "candidate"), "float32", ("predict",)),
    ArraySpec("axis", ("axis",), "string", ("project",)),
    ArraySpec("degenerate", ("layer",), "bool", ("project",)),
    ArraySpec("trustworthiness", ("layer",), "float32", ("project",)),
    ArraySpec("umap_raw", ("layer", "sentence", "axis"), "float32", ("project",)),
    ArraySpec("umap", ("layer", "sentence", "axis"), "float32", ("project",), headline=True),
    ArraySpec("pca", ("layer", "sentence", "axis"), "float32", ("project",), headline=True),
)
ARRAYS = {row.name: row for row in _ROWS}
# Names that a group needs whose states were not taken at the last tokens: coordinates that say where, and dimensions.
PLACE_COLUMNS = (
    *("token", "token_id", "char_start", "char_end", "exact", "n_pooled"),
    *("row", "row_size", "position", "message", "role", "instance", "place", "rendered", "mask"),
)
# Coordinates of each row, in groups whose sentences have any number of rows; all others are of sentences there.
ROW_COLUMNS = frozenset((*PLACE_COLUMNS, "sentence")) - {"row_size", "rendered"}
# The one array in the group of a model. No dataset can have this name: theirs begin with a letter or a digit.
CANARIES = "_canary_states"
HEADLINES = tuple(row.name for row in _ROWS if row.headline)
INTERNALS = tuple(row.name for row in _ROWS if row.internal)
# Points of every sentence at every layer, ready to be drawn or exported.
PROJECTIONS = tuple(row.name for row in _ROWS if row.headline and row.writers == ("project",))
# A kept column becomes an array of its own; one that is named like a dimension could not be opened by xarray.
RESERVED = frozenset((*ARRAYS, "spare")) | {dim for row in _ROWS for dim in row.dims}
# Between the name of an array and the further label that it is of.
OF_LABEL = "~"


def of_label(name: str, label: str) -> str:
    """The name of an array of a further label; of the main one, which is "", and of any label, the name itself.

    >>> of_label("separation", "kind"), of_label("separation", ""), of_label("bound", "kind")
    ('separation~kind', 'separation', 'bound')
    """
    return f"{name}{OF_LABEL}{label}" if label and name in ARRAYS and ARRAYS[name].by_label else name


def split_name(name: str) -> tuple[str, str]:
    """The name of an array in the table, and the further label that it is of; "" of the main one, or of none.

    >>> split_name("separation~kind"), split_name("separation"), split_name("umap~kind")
    (('separation', 'kind'), ('separation', ''), ('umap~kind', ''))
    """
    own, _, label = name.partition(OF_LABEL)
    return (own, label) if label and own in ARRAYS and ARRAYS[own].by_label else (name, "")


def spec_of(name: str) -> ArraySpec | None:
    """The row of an array by its name in a group, also of a further label; None where the table has none.

    >>> spec_of("separation~kind").dims, spec_of("text~kind")
    (('layer', 'metric~kind', 'bound'), None)
    """
    own, label = split_name(name)
    spec = ARRAYS.get(own)
    if spec is None or not label:
        return spec
    return replace(spec, name=name, dims=tuple(of_label(dim, label) for dim in spec.dims))


def is_result(name: str) -> bool:
    """Whether a name is that of an array which a stage after extraction writes."""
    spec = spec_of(name)
    return spec is not None and spec.is_result


def is_headline(name: str) -> bool:
    """Whether `drillcore show` names an array.

    >>> is_headline("separation~kind"), is_headline("metric")
    (True, False)
    """
    return split_name(name)[0] in HEADLINES


def check_kept_names(dataset: Dataset, more: Sequence[str] = (), named_by: str = "keep") -> None:
    """Check that every kept column can be an array of the store.

    more: names that positions need. named_by: what names the fields, for a message.

    Raises:
        TextError: a name is one of drillcore's own, named twice, or cannot name an array.
    """
    remedies = {
        "keep": ", or leave it out of `keep`.",
        "labels": ", or name it first: the first of `labels` is the column `label`.",
    }
    hint = "Rename the column in the file" + remedies.get(named_by, ".")
    for name in dataset.keep:
        where = f"dataset {dataset.name}: {named_by}: {_printable(name)}"
        if name in RESERVED or name in more or is_result(name):
            raise TextError(f"{where} is a name that drillcore uses itself", hint=hint)
        if dataset.keep.count(name) > 1:
            raise TextError(f"{where} is named twice", hint="Name it once.")
        odd = not name.isprintable() or "/" in name or name.startswith("__") or not name.strip(".") or len(name) > 200
        if odd or name != name.strip():
            raise TextError(f"{where} cannot be the name of an array in the store", hint=hint)


def _printable(name: str) -> str:
    """A name made safe and short enough for a message."""
    short = name if len(name) <= 60 else name[:57] + "..."
    return f"`{short if short.isprintable() else ascii(short)[1:-1]}`"
