"""`drillcore.extract`: the states of a few sentences, without a job file or a store to keep."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drillcore.errors import JobError, TextError
from drillcore.job.common import expand
from drillcore.job.fields import Job, LoadedJob
from drillcore.job.inputs import is_local
from drillcore.runtime.runner import run_stages
from drillcore.store.tree import open_tree
from drillcore.system.bounds import real_path
from drillcore.system.progress import Silent
from drillcore.texts.columns import as_sentence

if TYPE_CHECKING:
    import xarray as xr


def extract_in_memory(
    model: str,
    sentences: str | Sequence[str],
    settings: dict[str, Any],
    fields: Mapping[str, Sequence[Any]] | None = None,
) -> xr.Dataset | xr.DataTree:
    """Run the extract stage with a store in a temporary folder, and load the result into memory.

    settings: fields of the job's `extract` section. fields: of the sentences, for positions. Returns and raises what
    `drillcore.extract` does.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    import xarray as xr
    from pydantic import ValidationError

    texts = list_of_sentences(sentences)
    columns = {"text": pa.array(texts, pa.string()), **_checked_fields(fields or {}, len(texts))}
    with tempfile.TemporaryDirectory(prefix="drillcore-") as scratch:
        folder = Path(scratch)
        pq.write_table(pa.table(columns), folder / "sentences.parquet")
        location = str(real_path(expand(model))) if is_local(model) else model
        try:
            job = Job.model_validate(
                {
                    "name": "memory",
                    "store": str(folder / "memory.zarr"),
                    "models": [{"id": location, "as": "model"}],
                    "datasets": [{"name": "sentences", "path": "sentences.parquet", "label": None}],
                    "extract": settings,
                }
            )
        except ValidationError as error:
            first = error.errors()[0]
            raise JobError(
                f"{'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}",
                hint="See `drillcore schema job`.",
            ) from None
        loaded = LoadedJob(job=job, base=folder, source="memory")
        run_stages(loaded, ("extract",), Silent())
        found = open_tree(loaded.store)["model"]
        if "positions" not in settings:
            states: xr.Dataset = found["sentences"].to_dataset().load()
            return states
        nodes = {g.position.called or "last": found[g.name].to_dataset().load() for g in job.groups}
        return xr.DataTree.from_dict(nodes)


def _checked_fields(fields: Mapping[str, Sequence[Any]], count: int) -> dict[str, list[Any]]:
    """Fields beside the sentences; raises TypeError or TextError where one has no value for each sentence."""
    found = {}
    for name, values in fields.items():
        if isinstance(values, str | bytes) or not hasattr(values, "__len__"):
            raise TypeError(f"fields: {name} must be a list with a value for each sentence, not {_kind(values)}")
        if name == "text" or len(values) != count:
            what = "is the name of the sentences" if name == "text" else f"has {len(values)} values"
            raise TextError(f"fields: {name} {what}; there are {count} sentences", hint="Give one value for each.")
        found[name] = [value.item() if hasattr(value, "item") else value for value in values]
    return found


def list_of_sentences(sentences: object) -> list[str]:
    """The sentences that a caller passed: one string is one sentence; otherwise a sequence of strings, in its order.

    NumPy arrays and pandas Series of strings are sequences of strings.

    Raises:
        TypeError: something else was passed, or one item is no string; says what to pass.
        TextError: there is no sentence, or one is empty or cannot be stored.

    >>> list_of_sentences("Hello"), list_of_sentences(("a", "b"))
    (['Hello'], ['a', 'b'])
    """
    if isinstance(sentences, str):
        return [_checked(sentences, "the sentence")]
    remedy = _remedy(sentences)
    if remedy:
        raise TypeError(f"sentences must be a string or a sequence of strings, not {_kind(sentences)}: {remedy}")
    items = list(sentences)  # type: ignore[call-overload]
    for place, item in enumerate(items):
        if not isinstance(item, str):
            raise TypeError(f"sentences[{place}] is {_kind(item)}, not a string: pass one string for each sentence")
    if not items:
        raise TextError("there is no sentence to extract", hint="Pass at least one string.")
    return [_checked(item, f"sentences[{place}]") for place, item in enumerate(items)]


def _checked(sentence: str, where: str) -> str:
    try:
        # An enum of strings has a str() of its own.
        return as_sentence(str.__str__(sentence))
    except ValueError as error:
        raise TextError(f"{where} {error}", hint="Leave it out or replace it; nothing was computed.") from None


def _remedy(sentences: object) -> str:
    """What to pass instead of what is not a sequence; empty where it may be one."""
    num_axes = getattr(sentences, "ndim", 1)
    if isinstance(sentences, bytes | bytearray | memoryview):
        return "decode it, for example sentences.decode()"
    if num_axes != 1 or hasattr(sentences, "columns"):
        return "pass one column or row of it, for example list(table['text'])"
    if isinstance(sentences, Mapping):
        return "pass the strings themselves, for example list(sentences.values())"
    if isinstance(sentences, Iterator):
        return "it can be read only once; pass list(sentences)"
    # The items of an array of characters are letters, not sentences.
    if not (isinstance(sentences, Sized) and hasattr(sentences, "__getitem__")) or hasattr(sentences, "typecode"):
        return "pass a list of strings"
    return ""


def _kind(value: object) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"
