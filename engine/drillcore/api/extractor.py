"""`drillcore.Extractor`: one model, found, loaded and checked once, for the texts of a notebook."""

from __future__ import annotations

import itertools
import re
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast, overload

from drillcore.api.progress import listener
from drillcore.api.texts import column, list_of_texts, refuse_other_index
from drillcore.backends import check_backend
from drillcore.backends.in_memory import device_of, dtype_of, holding, is_model
from drillcore.backends.layers import number_of, resolve_layers
from drillcore.errors import InputError, JobError, ModelError, SelfCheckError, TextError
from drillcore.job.choices import did_you_mean
from drillcore.job.common import expand
from drillcore.job.extract import Extract
from drillcore.job.fields import LoadedJob
from drillcore.job.file import checked_job
from drillcore.job.groups import SEPARATOR
from drillcore.job.model import is_local
from drillcore.runtime.runner import run_stages
from drillcore.runtime.session import Session
from drillcore.store.tree import open_tree
from drillcore.system.bounds import real_path
from drillcore.system.progress import ProgressListener

if TYPE_CHECKING:
    from os import PathLike

    import pyarrow as pa
    import xarray as xr

Result = TypeVar("Result", bound="xr.Dataset | xr.DataTree")

# Fields of a job that are arguments here, by its section; `extract` has all of its own.
SECTIONS = {
    "models": (
        "revision",
        "trust_remote_code",
        "random_weights",
        "device_map",
        "offload",
        "adapter",
        "adapter_revision",
        "merge_adapter",
        "gguf_file",
        "quantization",
    ),
    "datasets": ("template", "templates", "chat", "branches"),
    "run": ("audit",),
}
TOKENIZER_HINT = "Pass tokenizer=..., such as AutoTokenizer.from_pretrained(...), or its folder or hub id."


class Extractor(Generic[Result]):
    """Hidden states of one model for any number of calls; the model is loaded and checked by the first one.

    model: hub id, folder, demo/smollm2-135m-instruct, or a model of transformers that is loaded already. Such a model
    is used as it stands: its modules are copied and its weights shared, so that its mode, hooks and gradients are left
    alone; hooks that it has act on the copy too, and see packs of several texts as well as single ones, in the
    self-check and the audit too. tokenizer: of the model, its folder or hub id; by default the model's
    own, found by its name_or_path where the model is in memory. layers: `all`, `hf`, or a list of numbers (-1 is the
    last one) and names (embed, block_12, final_norm). dtype, device: auto is bfloat16 on CUDA and float32 on a CPU;
    those of a model in memory are its own. batch_tokens: tokens of a forward pass. positions: as in a job, for other
    tokens than the last ones. progress: True shows it, None is quiet. settings: other fields of a job's `extract`
    section, and revision, trust_remote_code, random_weights, device_map, offload, adapter, adapter_revision,
    merge_adapter, gguf_file, quantization, template, templates, chat, branches, audit.

    A call takes texts and gives a dataset with `hidden_states` [sentence, layer, hidden], float32, and coordinates
    `sentence`, `text`, `label`, `layer` and `layer_name`; with positions, templates or branches, a tree of such
    datasets by name. Layers come in the order in which `layers` names them. Texts and labels are arrays of Python's
    strings, which scikit-learn takes; a label of 1 becomes "1", and a text without a label has an empty one. Labels
    that are numbers, some with a fraction, stay numbers, and none is NaN.

    fields, further values for each text, become coordinates too.

    Raises JobError and ModelError where an argument is wrong, and the other errors of `drillcore.errors`.

    >>> with drillcore.Extractor("./model", layers=["embed", -1]) as extractor:
    ...     first, second = extractor(["The capital of France is"]), extractor(["Hello", "Bye"], labels=["in", "out"])
    >>> first.layer.values.tolist(), second.hidden_states.dims, second.label.values.tolist()
    ([0, 4], ('sentence', 'layer', 'hidden'), ['in', 'out'])
    """

    @overload
    def __init__(
        self: Extractor[xr.DataTree],
        model: str | PathLike[str] | Any,
        *,
        tokenizer: str | PathLike[str] | Any | None = None,
        layers: str | Sequence[int | str] = "all",
        dtype: str = "auto",
        device: str = "auto",
        batch_tokens: int | str = "auto",
        positions: Sequence[Any],
        progress: ProgressListener | bool | None = None,
        **settings: Any,
    ) -> None: ...

    @overload
    def __init__(
        self: Extractor[xr.Dataset],
        model: str | PathLike[str] | Any,
        *,
        tokenizer: str | PathLike[str] | Any | None = None,
        layers: str | Sequence[int | str] = "all",
        dtype: str = "auto",
        device: str = "auto",
        batch_tokens: int | str = "auto",
        positions: None = None,
        progress: ProgressListener | bool | None = None,
        **settings: Any,
    ) -> None: ...

    def __init__(
        self,
        model: str | PathLike[str] | Any,
        *,
        tokenizer: str | PathLike[str] | Any | None = None,
        layers: str | Sequence[int | str] = "all",
        dtype: str = "auto",
        device: str = "auto",
        batch_tokens: int | str = "auto",
        positions: Sequence[Any] | None = None,
        progress: ProgressListener | bool | None = None,
        **settings: Any,
    ) -> None:
        wanted = {"layers": _layers(layers), "dtype": str(dtype).removeprefix("torch."), "device": str(device)}
        wanted["batch_tokens"] = batch_tokens
        if positions is not None:
            wanted["positions"] = [positions] if isinstance(positions, str | Mapping) else list(positions)
        self._listener, self._numbers = listener(progress, logged=False), itertools.count(1)
        self._is_tree = positions is not None or bool(settings.get("templates") or settings.get("branches"))
        self._tokenizer: Any = None
        self._hooks = ""
        self._stack = ExitStack()
        self._session = Session()
        self._stack.callback(self._session.close)
        try:
            self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="drillcore-")))
            self._sections = self._sections_of(model, tokenizer, {**wanted, **settings})
            self._check(self._job("texts", False))
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        extract = ", ".join(f"{k}={v!r}" for k, v in self._sections["extract"].items() if v not in ("auto", "all"))
        return f"Extractor({self._sections['models']['as']}{', ' if extract else ''}{extract})"

    def close(self) -> None:
        """Unload the model; one that the calling program loaded stays as it was."""
        self._stack.close()
        self._tokenizer = None

    def __call__(
        self,
        texts: str | Sequence[str] | Any,
        *,
        labels: Sequence[Any] | Any | None = None,
        fields: Mapping[str, Sequence[Any] | Any] | None = None,
    ) -> Result:
        """States of texts, in their order; see the class.

        texts: one string is one text; otherwise a list, or a column of pandas, pyarrow or NumPy. labels: one for each
        text, None where it has none. fields: further values for each text, which become coordinates and which
        positions may name.

        Raises TypeError where texts are something else, TextError where one cannot be used, RunError where states
        cannot be had.
        """
        if not self._folder.exists():
            raise RuntimeError("the Extractor is closed: its model is unloaded")
        beside = {
            **({} if labels is None else {"labels": labels}),
            **{f"fields: {n}": v for n, v in (fields or {}).items()},
        }
        refuse_other_index(texts, beside)
        table = _table(list_of_texts(texts), labels, fields or {})
        name = f"texts-{next(self._numbers)}"
        loaded = self._job(name, labels is not None, fields or ())
        path, store = self._folder / f"{name}.parquet", Path(loaded.store)
        try:
            self._write(table, path)
            run_stages(loaded, ("extract",), self._listener, session=self._session)
            self._prove(table.column("text").to_pylist())
            return cast(Result, self._read(loaded))
        except (ModelError, SelfCheckError) as error:
            said = str(error).replace(self._sections["models"]["id"], self._sections["models"]["as"])
            said = f"with the hooks that it has, the {said}" if self._hooks and said.startswith("model ") else said
            raise type(error)(said, hint=f"{error.hint} {self._hooks}".strip()) from error
        except InputError as error:
            # The file is ours: the caller knows his texts.
            # Rows of a file count from 1.
            said = re.sub(rf"{re.escape(str(path))}:(\d+)", lambda row: f"texts[{int(row[1]) - 1}]", str(error))
            said = said.replace(str(path), "texts").replace("dataset texts: keep: ", "fields: ")
            said = said.replace("extract.too_long: truncate", 'too_long="truncate"')
            hint = "Give the field another name." if "`keep`" in error.hint else error.hint
            raise type(error)(said, hint=hint) from error
        finally:
            path.unlink(missing_ok=True)
            shutil.rmtree(store, ignore_errors=True)
            shutil.rmtree(store.with_suffix(""), ignore_errors=True)

    def _read(self, loaded: LoadedJob) -> xr.Dataset | xr.DataTree:
        import xarray as xr

        tree = open_tree(loaded.store)[loaded.job.models[0].group]
        wanted = self._sections["extract"]["layers"]  # a job has them ascending
        num_layers = self._session.find(loaded.job.models[0], loaded.base).facts.num_layers
        order = None if isinstance(wanted, str) else [number_of(each, num_layers) for each in wanted]
        if not self._is_tree:
            states: xr.Dataset = _in_memory(tree["texts"].to_dataset(), order)
            return states
        nodes = {g.name.partition(SEPARATOR)[2] or "last": tree[g.name].to_dataset() for g in loaded.job.groups}
        return xr.DataTree.from_dict({name: _in_memory(states, order) for name, states in nodes.items()})

    def _sections_of(self, model: Any, tokenizer: Any, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """The sections of the job, from arguments; raises JobError for one that no section has."""
        sections: dict[str, dict[str, Any]] = {"extract": {}, "models": {}, "datasets": {}, "run": {}}
        for name, value in settings.items():
            section = next((s for s, names in SECTIONS.items() if name in names), "extract")
            if section == "extract" and name not in Extract.model_fields:
                known = [*Extract.model_fields, *(n for names in SECTIONS.values() for n in names)]
                raise JobError(f"there is no setting {name}{did_you_mean(name, known)}", hint="See help(Extractor).")
            sections[section][name] = value
        own = self._name_model(model, sections)
        sections["models"]["as"] = _called(
            (own or type(model).__name__) if is_model(model) else sections["models"]["id"]
        )
        if own is None and tokenizer is None and is_model(model):
            raise ModelError(
                "the model does not say where its tokenizer is (name_or_path is empty)", hint=TOKENIZER_HINT
            )
        if tokenizer is not None or is_model(model):
            sections["models"]["tokenizer"] = self._name_tokenizer(own if tokenizer is None else tokenizer)
        return sections

    def _name_model(self, model: Any, sections: dict[str, dict[str, Any]]) -> str | None:
        """Put the model's id into the job; returns what a model in memory says that it was read from."""
        entry, extract = sections["models"], sections["extract"]
        if not is_model(model):
            entry["id"] = _located(model, "model")
            return None
        held = self._stack.enter_context(holding(model, str(self._folder / "tokenizer")))
        entry["id"] = held.name
        if held.hooked:
            self._hooks = (
                f"It has hooks at {', '.join(held.hooked[:3])}: one that looks at places, mixes tokens or draws at "
                "random gives other states in a batch than for a text alone, and cannot be used."
            )
        extract["dtype"], extract["device"] = dtype_of(held, extract["dtype"]), device_of(held, extract["device"])
        if extract.get("backend", "transformers") != "transformers":
            raise JobError(
                f"backend: {extract['backend']} cannot run a model that is loaded already",
                hint="Leave backend out, or name the model's folder or hub id.",
            )
        if others := sorted({*entry} - {"id", "as"}):
            raise JobError(f"{others[0]} says how a model is loaded; this one is already", hint="Leave it out.")
        return str(getattr(held.causal, "name_or_path", "") or "") or None

    def _name_tokenizer(self, tokenizer: Any) -> str:
        """Where the tokenizer is; one in memory is saved."""
        if isinstance(tokenizer, str) or hasattr(tokenizer, "__fspath__"):
            return _located(tokenizer, "tokenizer")
        tokenizer = getattr(tokenizer, "tokenizer", tokenizer)  # of a processor
        if not (hasattr(tokenizer, "save_pretrained") and callable(tokenizer)):
            raise TypeError(f"tokenizer is of type {type(tokenizer).__name__}, not a tokenizer of transformers")
        folder = self._folder / "tokenizer"
        tokenizer.save_pretrained(folder)
        self._tokenizer = tokenizer
        return str(folder)

    def _job(self, name: str, has_labels: bool, fields: Collection[str] = ()) -> LoadedJob:
        """The job of one call; raises JobError."""
        kept = {"keep": list(fields)} if fields else {}
        label = {"label": "label", "unlabelled": "keep"} if has_labels else {"label": None}
        value = {
            "name": "memory",
            "store": str(self._folder / f"{name}.zarr"),
            "models": [self._sections["models"]],
            "datasets": [{"name": "texts", "path": f"{name}.parquet", **label, **kept, **self._sections["datasets"]}],
            "extract": self._sections["extract"],
            "run": self._sections["run"],
        }
        try:
            job = checked_job(value)
        except JobError as error:
            # The caller knows arguments, not sections.
            lines = [re.sub(r"^(extract|models\.0|datasets\.\w+|run)\.", "", line) for line in str(error).split("\n")]
            raise JobError("\n".join(lines), hint="See help(drillcore.Extractor).") from None
        return LoadedJob(job=job, base=self._folder, source="memory")

    def _check(self, loaded: LoadedJob) -> None:
        """What can be refused before there are texts: the model, its layers, its tokenizer, the backend."""
        extract = loaded.job.extract
        check_backend(extract.backend, None, extract)
        source = self._session.find(loaded.job.models[0], loaded.base)
        check_backend(extract.backend, source, loaded.job.extracting)
        resolve_layers(extract.layers, source.facts.num_layers)
        self._proved = source.tokenizer(extract.special_tokens)

    def _prove(self, texts: list[str]) -> None:
        """Refuse a tokenizer that gives other tokens once it is saved and read; raises ModelError."""
        if self._tokenizer is None:
            return
        special = self._sections["extract"].get("special_tokens", "auto") != "none"
        for start in range(0, len(texts), 1024):
            part = texts[start : start + 1024]
            own = self._tokenizer(part, add_special_tokens=special, padding=False, truncation=False, verbose=False)
            own = own["input_ids"]
            saved = self._proved.encode(part)
            for place, (mine, read) in enumerate(zip(own, saved, strict=True), start):
                if list(mine) != read:
                    raise ModelError(
                        f"the tokenizer gives other tokens for texts[{place}] once it is saved and read again",
                        hint="Save it, name its folder, and check what was changed in it since it was loaded.",
                    )

    @staticmethod
    def _write(table: pa.Table, path: Path) -> None:
        import pyarrow.parquet as pq

        pq.write_table(table, path)


def _in_memory(states: xr.Dataset, order: Sequence[int] | None) -> xr.Dataset:
    """A group with its layers in this order, those that it has, and its texts as Python's strings."""
    if order is not None:
        there = set(states.layer.values.tolist())
        states = states.sel(layer=[number for number in order if number in there])
    states = states.load()
    strings = [n for n, v in states.variables.items() if v.dtype.kind == "T" and n not in states.xindexes]
    return states.assign_coords({name: states[name].astype(object) for name in strings})


def _called(name: str) -> str:
    """What lines call a model: the last part of its folder or hub id.

    >>> _called("./models/Llama 3/"), _called("org/name")
    ('Llama-3', 'name')
    """
    return re.sub(r"[^A-Za-z0-9._+=@-]+", "-", name.rstrip("/").rsplit("/", 1)[-1]).lstrip("-._+=@") or "model"


def _layers(layers: str | Sequence[int | str] | int) -> Any:
    """Layers as a job has them; one layer is a list of it."""
    if isinstance(layers, str) and layers in ("all", "hf"):
        return layers
    if isinstance(layers, str | int):
        return [layers]
    return [int(k) if hasattr(k, "__index__") else k for k in layers]


def _located(name: Any, what: str) -> str:
    """A folder as an absolute path, a hub id as it is; raises TypeError for anything else."""
    if hasattr(name, "__fspath__"):
        return str(real_path(Path(name).expanduser()))
    if not isinstance(name, str):
        kind = "None" if name is None else f"of type {type(name).__name__}"
        raise TypeError(f"{what} is {kind}: pass a hub id, a folder, or what transformers loaded")
    # As transformers does, a folder of that name comes before the hub.
    return str(real_path(expand(name))) if is_local(name) or Path(name).is_dir() else name


def _table(texts: list[str], labels: Any, fields: Mapping[str, Any]) -> pa.Table:
    """The texts with what stands beside them; raises TypeError or TextError where there is not one for each."""
    import pyarrow as pa

    columns = {} if labels is None else {"label": column("labels", labels, len(texts))}
    for name, values in fields.items():
        if name in ("text", *columns):
            raise TextError(f"fields: {name} is the name of the {name}s", hint="Give the field another name.")
        columns[name] = column(f"fields: {name}", values, len(texts))
    arrays = {"text": pa.array(texts, pa.string())}
    for name, values in columns.items():
        try:
            arrays[name] = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            raise TextError(
                f"{'labels' if name == 'label' else name}: values of several types, or of one that cannot be stored",
                hint="Pass strings, or numbers alone.",
            ) from None
    return pa.table(arrays)
