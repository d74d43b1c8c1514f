"""The weights of a model that stay on the disk: read layer by layer, converted as `transformers` does.

What is taken of `transformers` here is importable and not documented: this module alone uses it, and says so where an
installed version lacks it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from drillcore.backends.weight_files import few, first_line
from drillcore.errors import JobError, ModelError, WeightsChangedError

# A name that no weight has. A part on the disk makes transformers convert in the calling thread, one weight at a time.
NOWHERE = "\0"


@dataclass(frozen=True)
class Place:
    """Where a tensor that is a parameter hangs, and what stands there while its values are on the disk."""

    module: nn.Module
    name: str
    empty: nn.Parameter

    def clear(self) -> None:
        """Drop the values."""
        self.module._parameters[self.name] = self.empty

    @property
    def is_empty(self) -> bool:
        """Whether there are no values."""
        return self.module._parameters[self.name] is self.empty


class WeightFiles:
    """Safetensors files, read by `pread`: mapped files would grow into memory as a whole.

    Each stays open, and must stay as it was when it was opened.
    """

    def __init__(self, model: str, files: Sequence[Path], beside: Sequence[Path] = ()) -> None:
        """beside: files that are read by others, and must stay too."""
        from safetensors import SafetensorError, safe_open

        self.model, self._states = model, {file: _state(file) for file in (*files, *beside)}
        self._refused: tuple[type[Exception], ...] = (OSError, ValueError, SafetensorError)
        self._opened: dict[Path, Any] = {}
        self.failure: WeightsChangedError | None = None
        for file in files:
            try:
                self._opened[file] = safe_open(file, framework="pt", backend="pread")
            except self._refused as error:
                raise self._changed(file, first_line(error)) from error
        self._file = {name: file for file, opened in self._opened.items() for name in opened.keys()}  # noqa: SIM118
        self.check()

    @property
    def names(self) -> list[str]:
        """The tensors of all files."""
        return list(self._file)

    def read(self, name: str) -> Tensor:
        """A tensor's values; raises WeightsChangedError where its file does not hold them any more."""
        file = self._file[name]
        try:
            values: Tensor = self._opened[file].get_tensor(name)
        except self._refused as error:
            # transformers may hold back what is raised while it converts.
            self.failure = self._changed(file, first_line(error))
            raise self.failure from error
        # A device copies from pinned memory at the full rate of its bus.
        return values.pin_memory() if torch.cuda.is_available() else values

    def dtype(self, name: str) -> str:
        """The dtype of a tensor, such as BF16."""
        return str(self._opened[self._file[name]].get_slice(name).get_dtype())

    def num_values(self, name: str) -> int:
        """Values of a tensor."""
        return math.prod(self._opened[self._file[name]].get_slice(name).get_shape())

    def check(self) -> None:
        """Raise WeightsChangedError where a file is no longer the one that was opened."""
        for file, state in self._states.items():
            try:
                now = _state(file)
            except OSError as error:
                raise self._changed(file, first_line(error)) from error
            if now != state:
                raise self._changed(file, f"{state[2]:,} bytes when the run began, {now[2]:,} now")

    def close(self) -> None:
        """Close the files."""
        self._opened = {}

    def _changed(self, file: Path, why: str) -> WeightsChangedError:
        return WeightsChangedError(
            f"model {self.model}: its weights changed while they were read: {file} ({why})",
            hint="Nothing of this sweep is stored. Put the whole file back, and run the same command again.",
        )


def _state(file: Path) -> tuple[int, int, int, int]:
    found = file.stat()  # follows links, as the hub's cache has them
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


@dataclass
class _Later:
    """A tensor of a file, read when transformers asks for it."""

    files: WeightFiles
    name: str

    def __getitem__(self, part: Any) -> Tensor:
        return self.files.read(self.name)

    def get_dtype(self) -> str:
        """By the name that safetensors gives it, as a slice of a file tells it."""
        return self.files.dtype(self.name)


@dataclass
class LayerWeights:
    """Which tensors of the files belong to which decoder layer of a model, and how they get there.

    keys: names in the files by layer, counted from 0. places: the parameters that each layer has to itself. buffers:
    those that it has to itself, by module and name. shared: whether layers share modules, so that no two of them can be
    prepared at a time. tree: the model by the names of the files, where an adapter has changed them. merges: for each
    layer, what adds an adapter to its parameters.
    """

    causal: Any
    files: WeightFiles
    settings: Any
    keys: list[dict[str, _Later]] = field(default_factory=list)
    places: list[list[Place]] = field(default_factory=list)
    buffers: list[list[tuple[nn.Module, str]]] = field(default_factory=list)
    shared: bool = False
    converted_bytes: int = 0
    tree: Any = None
    merges: list[list[Callable[[], None]]] = field(default_factory=list)

    @property
    def base(self) -> Any:
        """The model without adapter, by the names of the files."""
        return self.causal if self.tree is None else self.tree

    @property
    def largest_bytes(self) -> int:
        """Bytes of the largest layer, in the dtype that it has in memory."""
        sizes = [sum(p.empty.numel() * p.empty.element_size() for p in places) for places in self.places]
        return max(sizes, default=0)

    def load(self, layer: int) -> None:
        """Read the parameters of a layer.

        Raises WeightsChangedError where the files changed, ModelError for what they lack.
        """
        _convert(self.base, self.keys[layer], self.settings)
        if lacking := [place.name for place in self.places[layer] if place.is_empty]:
            raise ModelError(
                f"model {self.files.model}: its files lack weights of its decoder layer {layer + 1}: {few(lacking)}",
                hint="It cannot be read layer by layer: set extract.weights: resident.",
            )
        for merge in self.merges[layer] if self.merges else ():
            merge()

    def drop(self, layer: int) -> None:
        """Free the parameters of a layer."""
        for place in self.places[layer]:
            place.clear()

    def own(self, layer: int) -> list[Tensor]:
        """What a layer has to itself."""
        return [*self.parameters_of(layer), *self.buffers_of(layer)]

    def parameters_of(self, layer: int) -> list[Tensor]:
        """Its parameters, with the values that are loaded now."""
        found = (place.module._parameters[place.name] for place in self.places[layer])
        return [p for p in found if p is not None]

    def buffers_of(self, layer: int) -> list[Tensor]:
        """Its buffers, which stay in memory."""
        found = (module._buffers[name] for module, name in self.buffers[layer])
        return [b for b in found if b is not None]


def split(
    causal: Any,
    layers: nn.ModuleList,
    files: WeightFiles,
    dtype: torch.dtype,
    device: torch.device,
    quantiser: Any = None,
) -> LayerWeights:
    """Find what belongs to each layer, and read everything else. causal: a model whose parameters are empty.

    quantiser: of transformers, which dequantises what is read; None where the files hold plain numbers.

    Tied weights, and those of modules that several layers share, are read now and stay. Raises WeightsChangedError
    where the files changed, JobError where the installed transformers is not one that this was written for.
    """
    path = next(name for name, module in causal.named_modules() if module is layers)
    settings = _settings(causal, dtype, device, quantiser)
    shared, names = _shared(causal, layers), causal.state_dict()
    tied = {*causal.all_tied_weights_keys, *causal.all_tied_weights_keys.values()}
    owner: dict[str, int] = {}
    places: list[list[Place]] = [[] for _ in layers]
    for name in names:
        if not name.startswith(f"{path}.") or name in tied:
            continue
        inside, _, last = name.rpartition(".")
        module = causal.get_submodule(inside)
        if id(module) in shared:
            continue
        owner[name] = int(name.removeprefix(f"{path}.").split(".", 1)[0])
        if last in module._parameters:  # buffers are small: once read they stay
            places[owner[name]].append(Place(module, last, module._parameters[last]))
    keys: list[dict[str, _Later]] = [{} for _ in layers]
    rest: dict[str, _Later] = {}
    converted = 0
    for key in files.names:
        name, is_converted = _target(causal, key, settings, names)
        number = owner.get(name)
        (rest if number is None else keys[number])[key] = _Later(files, key)
        converted += files.num_values(key) * dtype.itemsize if is_converted and number is not None else 0
    report = _convert(causal, rest, settings)
    causal.tie_weights(missing_keys={n for n in report.missing_keys if n not in owner}, recompute_mapping=False)
    buffers = [
        [(m, name) for m in layer.modules() if id(m) not in shared for name, b in m._buffers.items() if b is not None]
        for layer in layers
    ]
    return LayerWeights(causal, files, settings, keys, places, buffers, bool(shared), converted)


def _shared(causal: Any, layers: nn.ModuleList) -> set[int]:
    """Modules [id] inside the layers that lie in several of them, or outside too."""
    inside = [{id(m) for m in layer.modules()} for layer in layers]
    counts = Counter(m for each in inside for m in each)
    within = {id(layers), *counts}
    outside = {
        id(m)
        for name, m in causal.named_modules(remove_duplicate=False)
        if id(m) in within and not any(name.startswith(p) for p in _paths(causal, layers))
    }
    return {m for m, count in counts.items() if count > 1} | (outside & counts.keys())


def _paths(causal: Any, layers: nn.ModuleList) -> list[str]:
    return [name for name, m in causal.named_modules(remove_duplicate=False) if m is layers]


def _settings(causal: Any, dtype: torch.dtype, device: torch.device, quantiser: Any) -> Any:
    """How transformers is to convert this model's weights."""
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.modeling_utils import LoadStateDictConfig

        mapping: Any = get_model_conversion_mapping(causal, hf_quantizer=quantiser)
        return LoadStateDictConfig(
            dtype=dtype,
            dtype_plan=causal._get_dtype_plan(dtype),
            device_map={"": device, NOWHERE: "disk"},
            hf_quantizer=quantiser,
            weight_mapping=mapping,
        )
    except (ImportError, AttributeError, TypeError) as error:
        raise _other_transformers(error) from error


def _target(causal: Any, key: str, settings: Any, names: dict[str, Any]) -> tuple[str, bool]:
    """The name in the model of what a tensor of the files becomes, or becomes part of; whether its values change."""
    try:
        from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key
    except ImportError as error:
        raise _other_transformers(error) from error
    renamings = [each for each in settings.weight_mapping if isinstance(each, WeightRenaming)]
    converters = [each for each in settings.weight_mapping if isinstance(each, WeightConverter)]
    found, by = rename_source_key(key, renamings, converters, causal.base_model_prefix, names)
    if found not in names and key in names:
        found, by = rename_source_key(key, [], [], causal.base_model_prefix, names)
    return str(found), by is not None


def _convert(causal: Any, tensors: dict[str, _Later], settings: Any) -> Any:
    """Put these tensors into the model, each of which is read when its turn comes; transformers' report."""
    try:
        from transformers.core_model_loading import convert_and_load_state_dict_in_model
    except ImportError as error:
        raise _other_transformers(error) from error
    report, _ = convert_and_load_state_dict_in_model(causal, tensors, settings)
    if failure := next((each.files.failure for each in tensors.values()), None):
        raise failure
    if report.conversion_errors or report.mismatched_keys:
        found = [*report.conversion_errors, *(name for name, *_ in report.mismatched_keys)]
        raise ModelError(
            f"weights cannot be put together as {type(causal).__name__} wants them: {few(sorted(found))}",
            hint="It cannot be read layer by layer: set extract.weights: resident.",
        )
    return report


def _other_transformers(error: Exception) -> JobError:
    from transformers import __version__

    return JobError(
        f"weights cannot be read layer by layer with transformers {__version__}: {first_line(error)}",
        hint="Set extract.weights: resident, or install the transformers that constraints.txt names.",
    )
