"""Last-token hidden states of every layer of a language model, for millions of sentences across many models.

`run(job)` runs a job file, `open(store)` gives an xarray DataTree, `extract(model, sentences)` the states of a few
sentences as xarray. Nothing heavy is imported before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from drillcore import errors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike

    import xarray as xr

__all__ = ["errors", "extract", "open", "run"]


def run(job: str | PathLike[str], *, set: Sequence[str] = (), store: str | None = None, overwrite: bool = False) -> str:
    """Run every stage of a job file; returns the store's address.

    set: overrides such as `extract.dtype=float32`. store: overrides the job's store. overwrite: whether states may be
    computed again, or dropped, where the job changed; it is refused with StoreError otherwise. Raises the errors of
    `drillcore.errors`.

    >>> store = drillcore.run("job.yaml", set=["render.panel_px=150"])
    """
    from pathlib import Path

    from drillcore.job.file import load_job
    from drillcore.runtime.runner import run_stages
    from drillcore.runtime.stages import ALL_STAGES
    from drillcore.system.progress import Silent

    loaded = load_job(Path(job), set, store)
    run_stages(loaded, ALL_STAGES, Silent(), overwrite=overwrite)
    return loaded.store


def open(store: str | PathLike[str]) -> xr.DataTree:
    """Open a store as an xarray DataTree: one group for each model and dataset, arrays read when used.

    Raises StoreError where there is no drillcore store.

    >>> tree = drillcore.open("runs/job.zarr")
    >>> tree["model/sentences"].hidden_states.dims
    ('sentence', 'layer', 'hidden')
    """
    from drillcore.store.tree import open_tree

    return open_tree(str(store))


@overload
def extract(
    model: str,
    sentences: str | Sequence[str],
    *,
    positions: Sequence[Any],
    fields: Mapping[str, Sequence[Any]] | None = None,
    **settings: Any,
) -> xr.DataTree: ...


@overload
def extract(model: str, sentences: str | Sequence[str], **settings: Any) -> xr.Dataset: ...


def extract(
    model: str,
    sentences: str | Sequence[str],
    *,
    positions: Sequence[Any] | None = None,
    fields: Mapping[str, Sequence[Any]] | None = None,
    **settings: Any,
) -> xr.Dataset | xr.DataTree:
    """Hidden states of a few sentences, in memory.

    model: hub id, local directory, or demo/smollm2-135m-instruct. sentences: one string is one sentence; otherwise a
    list, tuple, NumPy array or pandas Series of strings. positions: as in a job, for other tokens than the last ones;
    fields: values for each sentence that they name, such as offsets. settings: other fields of the job's `extract`
    section. Returns a dataset with `hidden_states` [sentence, layer, hidden] float32 and the store's coordinates; with
    positions, a tree of such datasets by the position's name. Raises TypeError where `sentences` is something else, and
    the errors of `drillcore.errors`.

    >>> states = drillcore.extract("./model", ["The capital of France is", "Hello"], layers=[0, 2])
    >>> states.hidden_states.shape[:2], states.layer_name.values.tolist()
    ((2, 2), ['embed', 'block_2'])
    >>> tree = drillcore.extract("./model", ["Ada met Zoë"], positions=["mean", {"span": ["a", "b"], "name": "who"}],
    ...     fields={"a": [8], "b": [11]})
    >>> sorted(tree), tree["mean"].hidden_states.dims, tree["who"].char_end.values.tolist()
    (['mean', 'who'], ('sentence', 'layer', 'hidden'), [11])
    """
    from drillcore.runtime.few_sentences import extract_in_memory

    given = settings if positions is None else {**settings, "positions": list(positions)}
    return extract_in_memory(model, sentences, given, fields)
