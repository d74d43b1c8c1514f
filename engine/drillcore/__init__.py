"""Last-token hidden states of every layer of a language model, for millions of sentences across many models.

`Job` builds a job and `run` runs it, or a job file; `plan` says what that will cost, and `append` adds rows to its
datasets. `open` gives a store as an xarray DataTree, and `extract` the states of a few sentences (`Extractor` keeps the
model for more). `show`, `measure`, `compare`, `export`, `verify` and `doctor` give the values behind what the commands
print; `push` shares a store; `merge`, `move` and `remove` change which groups stores have. Nothing heavy is imported
before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from drillcore import errors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike

    import xarray as xr

    from drillcore.api.append import append
    from drillcore.api.changing import move, remove
    from drillcore.api.doctor import doctor
    from drillcore.api.export import export
    from drillcore.api.extractor import Extractor
    from drillcore.api.job import Job
    from drillcore.api.measure import compare, measure
    from drillcore.api.merge import merge
    from drillcore.api.planning import plan
    from drillcore.api.push import push
    from drillcore.api.run import Run, run
    from drillcore.api.show import show
    from drillcore.api.stores import open
    from drillcore.api.verify import verify
    from drillcore.system.progress import ProgressListener

    __version__: str

__all__ = [
    "Extractor",
    "Job",
    "Run",
    "__version__",
    "append",
    "compare",
    "doctor",
    "errors",
    "export",
    "extract",
    "measure",
    "merge",
    "move",
    "open",
    "plan",
    "push",
    "remove",
    "run",
    "show",
    "verify",
]
# Modules of what is imported when it is first used.
_PLACES = {
    "Extractor": "drillcore.api.extractor",
    "Job": "drillcore.api.job",
    "Run": "drillcore.api.run",
    "append": "drillcore.api.append",
    "compare": "drillcore.api.measure",
    "doctor": "drillcore.api.doctor",
    "export": "drillcore.api.export",
    "measure": "drillcore.api.measure",
    "merge": "drillcore.api.merge",
    "move": "drillcore.api.changing",
    "open": "drillcore.api.stores",
    "plan": "drillcore.api.planning",
    "push": "drillcore.api.push",
    "remove": "drillcore.api.changing",
    "run": "drillcore.api.run",
    "show": "drillcore.api.show",
    "verify": "drillcore.api.verify",
}


def __getattr__(name: str) -> Any:
    """Import what is used for the first time."""
    if name == "__version__":
        found: Any = _version()
    elif name in _PLACES:
        from importlib import import_module

        found = getattr(import_module(_PLACES[name]), name)
    else:
        raise AttributeError(f"module 'drillcore' has no attribute {name!r}", name=name, obj=None)
    globals()[name] = found
    return found


def _version() -> str:
    """Version of the installed distribution; `0+unknown` where the package runs without one, as from a checkout."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("drillcore")
    except PackageNotFoundError:
        return "0+unknown"


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


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
    `label`, `layer` and `layer_name`; with positions, templates or branches, a tree of such datasets by name. Raises
    TypeError where `texts` is something else, and the errors of `drillcore.errors`.

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
