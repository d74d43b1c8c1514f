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

    from drillcore.api.extractor import Extractor
    from drillcore.system.progress import ProgressListener

__all__ = ["Extractor", "errors", "extract", "open", "run"]


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


def open(store: str | PathLike[str], *, internals: bool = False) -> xr.DataTree:
    """Open a store as an xarray DataTree: one group for each model and dataset, arrays read when used.

    Raises StoreError where there is no drillcore store.

    >>> tree = drillcore.open("runs/job.zarr")
    >>> tree["model/sentences"].hidden_states.dims
    ('sentence', 'layer', 'hidden')
    """
    from drillcore.store.tree import open_tree

    return open_tree(str(store), internals=internals)


@overload
def extract(
    model: str | PathLike[str] | Any,
    texts: str | Sequence[str] | Any,
    *,
    tokenizer: str | PathLike[str] | Any | None = None,
    labels: Sequence[Any] | Any | None = None,
    layers: str | Sequence[int | str] = "all",
    dtype: str = "auto",
    device: str = "auto",
    batch_tokens: int | str = "auto",
    positions: Sequence[Any],
    fields: Mapping[str, Sequence[Any] | Any] | None = None,
    progress: ProgressListener | bool | None = None,
    **settings: Any,
) -> xr.DataTree: ...


@overload
def extract(
    model: str | PathLike[str] | Any,
    texts: str | Sequence[str] | Any,
    *,
    tokenizer: str | PathLike[str] | Any | None = None,
    labels: Sequence[Any] | Any | None = None,
    layers: str | Sequence[int | str] = "all",
    dtype: str = "auto",
    device: str = "auto",
    batch_tokens: int | str = "auto",
    positions: None = None,
    fields: Mapping[str, Sequence[Any] | Any] | None = None,
    progress: ProgressListener | bool | None = None,
    **settings: Any,
) -> xr.Dataset: ...


def extract(
    model: str | PathLike[str] | Any,
    texts: str | Sequence[str] | Any,
    *,
    tokenizer: str | PathLike[str] | Any | None = None,
    labels: Sequence[Any] | Any | None = None,
    layers: str | Sequence[int | str] = "all",
    dtype: str = "auto",
    device: str = "auto",
    batch_tokens: int | str = "auto",
    positions: Sequence[Any] | None = None,
    fields: Mapping[str, Sequence[Any] | Any] | None = None,
    progress: ProgressListener | bool | None = None,
    **settings: Any,
) -> xr.Dataset | xr.DataTree:
    """Hidden states of some texts, in memory; `Extractor` keeps the model for more.

    model: hub id, folder, demo/smollm2-135m-instruct, or a model of transformers that is loaded already, which is used
    as it stands and left as it was. texts: one string is one text; otherwise a list, or a column of pandas, pyarrow or
    NumPy. tokenizer: by default the model's own. labels: one for each text. layers: `all`, `hf`, or a list of numbers
    (-1 is the last one) and names (embed, block_12, final_norm). dtype, device: auto is bfloat16 on CUDA and float32 on
    a CPU; those of a model in memory are its own. batch_tokens: tokens of a forward pass. positions: as in a job, for
    other tokens than the last ones; fields: values for each text that they name, such as offsets. progress: True shows
    it, None is quiet. settings: further ones, listed at `Extractor`.

    Returns a dataset with `hidden_states` [sentence, layer, hidden], float32, and coordinates `sentence`, `text`,
    `label`, `layer` and `layer_name`; with positions, a tree of such datasets by the position's name. Raises TypeError
    where `texts` is something else, and the errors of `drillcore.errors`.

    >>> states = drillcore.extract("./model", ["The capital of France is", "Hello"], layers=["embed", -1])
    >>> states.hidden_states.shape[:2], states.layer_name.values.tolist()
    ((2, 2), ['embed', 'final_norm'])
    >>> tree = drillcore.extract("./model", ["Ada met Zoë"], positions=["mean", {"span": ["a", "b"], "name": "who"}],
    ...     fields={"a": [8], "b": [11]})
    >>> sorted(tree), tree["mean"].hidden_states.dims, tree["who"].char_end.values.tolist()
    (['mean', 'who'], ('sentence', 'layer', 'hidden'), [11])
    """
    from drillcore.api.extractor import Extractor
    from drillcore.api.texts import list_of_texts

    # Before the model is looked for.
    listed = list_of_texts(texts)
    chosen: dict[str, Any] = {"layers": layers, "dtype": dtype, "device": device, "batch_tokens": batch_tokens}
    extractor: Extractor[Any] = Extractor(
        model, tokenizer=tokenizer, positions=positions, progress=progress, **chosen, **settings
    )
    with extractor:
        states: xr.Dataset | xr.DataTree = extractor(listed, labels=labels, fields=fields)
        return states


def __getattr__(name: str) -> Any:
    """What is imported when it is used."""
    if name == "Extractor":
        from drillcore.api.extractor import Extractor

        return Extractor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
