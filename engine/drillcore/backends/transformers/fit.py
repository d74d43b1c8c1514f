"""Whether a checkpoint is whole and belongs to its model: transformers' loading report, taken from headers alone.

transformers draws at random what a checkpoint lacks, and leaves out what the class has no place for. Both are found
before any weight is read, by loading tensors of the meta device, which have shapes and no values.
"""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from drillcore.backends.adapters import ADAPTER as ADAPTER_CONFIG
from drillcore.backends.configuration import bounded_building
from drillcore.backends.device import dtype_name
from drillcore.backends.source import ModelSource, weights_folder
from drillcore.backends.transformers.adapted import check_adapter
from drillcore.backends.transformers.dequantised import as_plain, note_of, plain_tensors
from drillcore.backends.transformers.expected import Expected, numbered
from drillcore.backends.transformers.quantised import is_quantised, refuse_unless_quantisable, refuse_without_scales
from drillcore.backends.weight_files import (
    INDEX,
    StoredTensor,
    few,
    first_line,
    not_indexed,
    read_headers,
    weight_files,
)
from drillcore.errors import MissingExtraError, ModelError
from drillcore.system.quiet import quiet_transformers

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
COMPLETE = "Complete the files, or take the config.json that was saved with these weights."
FLOATS = ("F64", "F32", "F16", "BF16")
# What quantised weights come with; names of tensors that a class has no place for.
SCALES = re.compile(
    r"(_scale|_scale_inv|_scale_2|_zero_point|_packed|_blocks|_scales|[._](qweight|qzeros|scales|g_idx|absmax|SCB))$"
    r"|\.quant_(map|state)\b"
)
ADAPTER = re.compile(r"\.(lora_\w+|base_layer|modules_to_save)\.")


@dataclass(frozen=True)
class Fit:
    """How a model is to be loaded, and what of a loading report is refused.

    loader: the class whose `from_pretrained` takes it. has_head: whether the files hold all that follows the decoder;
    hidden states need none of it, token prediction does. stored: dtype of the weights, such as float32; empty where it
    is not known. notes: what the user should know.
    """

    loader: Any
    expected: Expected
    files: tuple[Path, ...] = ()
    has_head: bool = True
    stored: str = ""
    notes: tuple[str, ...] = ()

    def check(self, model: str, report: dict[str, Any]) -> None:
        """Raise ModelError where weights that hidden states depend on are missing or have another shape."""
        expected = self.expected
        missing = sorted(filter(expected.used, report["missing_keys"]))
        shapes = sorted(f"{n} is {tuple(a)}, expected {tuple(b)}" for n, a, b in report["mismatched_keys"])
        if missing:
            raise ModelError(
                f"model {model}: its files lack {len(missing)} of the weights of {expected.class_name}, which "
                f"transformers would draw at random: {fold(missing)}{self._why(missing, report)}",
                hint=COMPLETE,
            )
        if shapes:
            raise ModelError(
                f"model {model}: {len(shapes)} weights have other shapes than config.json says: {few(shapes)}",
                hint="Name weights and a config.json that were saved together.",
            )

    def _why(self, missing: list[str], report: dict[str, Any]) -> str:
        """What may have led to it, as a part of the message."""
        if outside := not_indexed(list(self.files)):
            return f"; {few(outside)} lies beside the files, but {INDEX} does not name it"
        if foreign := sorted(report["unexpected_keys"]):
            return f"; they hold {fold(foreign)}, for which it has no place"
        if len(layers := {found for found in map(numbered, missing) if found}) and all(
            all(n in missing for n in self.expected.names if numbered(n) == layer) for layer in layers
        ):
            return f"; config.json has more layers than the files, by {len(layers)}"
        return ""


def examine(source: ModelSource) -> Fit:
    """Decide how to load a model, from its configuration and the headers of its files.

    Raises ModelError where weights are missing, have other shapes, or belong to another model, and MissingExtraError
    where a package is missing. Where the files are on the hub and not yet in the cache only the class is examined.
    """
    if source.held is not None:
        return Fit(type(source.held.causal), Expected(source.held.causal), has_head=source.held.has_head)
    given, source = source, as_plain(source)
    causal = build_on_meta(source)
    loader, expected = source.auto_class(), Expected(causal)
    notes = list(_contradiction(source, causal))
    folder = None if source.model.random_weights else weights_folder(source)
    if folder is None:
        return Fit(loader, expected, notes=tuple(notes))
    if source.model.gguf_file is not None:
        # Which tensors these must be is known to transformers' conversion alone: the report of the load is checked.
        return Fit(loader, expected, notes=(*notes, *check_adapter(source, causal)))
    refuse_unless_quantisable(given)
    files = weight_files(source.model.id, folder, getattr(source.config, "transformers_weights", None))
    tensors = plain_tensors(given, read_headers(source.model.id, files))
    if source.adapter is None and (folder / ADAPTER_CONFIG).exists():
        notes.append(
            f"an adapter lies beside it on the hub ({ADAPTER_CONFIG}), which is not loaded: name it as adapter"
        )
    if is_quantised(source.config):
        refuse_without_scales(source.model.id, tensors)
        notes += [*note_of(source), *check_adapter(source, causal)]
        # Which tensors these must be is known to the quantiser alone: the report of the load itself is checked.
        return Fit(loader, expected, tuple(files), notes=tuple(notes))
    _refuse_codes(source, expected, tensors)
    report = _report(source, causal, tensors)
    named = _named_class(source, causal) if _gaps(expected, report) else None
    if named is not None:
        other = build_on_meta(source, named)
        other_report = _report(source, other, tensors)
        if not _gaps(Expected(other), other_report):
            notes.append(f"loaded as {named.__name__}, which its config.json names; {expected.class_name} does not fit")
            causal, loader, expected, report = other, named, Expected(other), other_report
    _refuse_foreign(source, expected, report["unexpected_keys"])
    Fit(loader, expected, tuple(files)).check(source.model.id, report)
    notes += _left_out(source, expected, report["unexpected_keys"], tensors)
    notes += check_adapter(source, causal)
    has_head = all(expected.used(n) or expected.beside(n) for n in report["missing_keys"])
    if not has_head:
        notes.append("its files hold no output embedding: hidden states are whole, but next tokens cannot be predicted")
    return Fit(loader, expected, tuple(files), has_head, _stored_dtype(tensors), tuple(notes))


def build_on_meta(source: ModelSource, named: Any = None) -> Any:
    """The model without values; of the class that transformers chooses, or of the one `named`.

    Raises MissingExtraError where its code needs a package, ModelError where it cannot be built.
    """
    try:
        with bounded_building(source.model.id), quiet_transformers(), torch.device("meta"):
            return source.new_model() if named is None else named(copy.deepcopy(source.config))
    except ModelError:
        raise
    except ImportError as error:
        raise MissingExtraError(
            f"model {source.model.id} needs a package that is not installed: {first_line(error)}",
            hint="Install the package that the message names, into the environment of drillcore.",
        ) from error
    except Exception as error:  # the configuration decides what code runs here, and remote code may do anything
        raise ModelError(
            f"model {source.model.id} cannot be built from config.json: {type(error).__name__}: {first_line(error)}",
            hint="Take the config.json that was saved with the weights; code of its own must suit this transformers.",
        ) from error


def _report(source: ModelSource, causal: Any, tensors: dict[str, StoredTensor]) -> dict[str, Any]:
    """transformers' loading report for these tensors, without their values."""
    try:
        values = {
            n: torch.empty(t.shape, dtype=DTYPES.get(t.dtype, torch.uint8), device="meta") for n, t in tensors.items()
        }
        # Some classes fill tables for every position here, with values.
        with bounded_building(source.model.id), quiet_transformers():
            _, report = type(causal).from_pretrained(
                None,
                config=causal.config,
                state_dict=values,
                dtype=torch.float32,
                device_map="meta",
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
    except ModelError:
        raise
    except Exception as error:  # conversions of weights run here, and remote code may do anything
        lacking = _holes(tensors)
        raise ModelError(
            f"model {source.model.id}: its weights cannot be put together as {type(causal).__name__} wants them"
            + (f"; its files lack {fold(lacking)}" if lacking else f" ({type(error).__name__}: {first_line(error)})"),
            hint=COMPLETE,
        ) from error
    expected = Expected(causal)
    return {
        **report,
        "missing_keys": report["missing_keys"] | expected.unreported - set(map(expected.own_name, tensors)),
    }


def _gaps(expected: Expected, report: dict[str, Any]) -> bool:
    return bool(report["mismatched_keys"]) or any(map(expected.used, report["missing_keys"]))


def _named_class(source: ModelSource, causal: Any) -> Any:
    """The class that the configuration names, if transformers has it and it is another one; or None."""
    import transformers

    for name in source.config.architectures or ():
        named = getattr(transformers, name, None)
        if named is not None and named is not type(causal) and named.config_class is type(source.config):
            return named
    return None


def _contradiction(source: ModelSource, causal: Any) -> Iterator[str]:
    """Notes where the repository says that another class than the one that is used computes this model."""
    import transformers

    if not source.model.trust_remote_code and "AutoModelForCausalLM" in getattr(source.config, "auto_map", {}):
        yield (
            "it comes with code of its own, which is not run (trust_remote_code is false): "
            f"it is loaded as {type(causal).__name__} of transformers"
        )
    kind = source.config.model_type
    for name in source.config.architectures or ():
        other = getattr(getattr(transformers, name, None), "config_class", None)
        if name == type(causal).__name__:
            return
        if other is not None and not isinstance(causal.config, other) and not isinstance(source.config, other):
            yield f"its config.json names {name}, but its model_type is {kind}: it is loaded as {type(causal).__name__}"


def _refuse_codes(source: ModelSource, expected: Expected, tensors: dict[str, StoredTensor]) -> None:
    """Refuse weights that are stored as codes, where nothing says how to decode them."""
    codes = [n for n, t in tensors.items() if t.dtype not in FLOATS and expected.own_name(n) in expected.floating]
    codes += [n for n, t in tensors.items() if t.dtype not in (*FLOATS, "BOOL") and n.endswith(".weight")]
    if codes:
        kind, names = tensors[codes[0]].dtype, fold(sorted(set(codes)))
        raise ModelError(
            f"model {source.model.id}: its weights are stored as {kind} ({names}); "
            "config.json has no quantization_config that says how to read them",
            hint="Take the config.json that was saved with these weights.",
        )


def _refuse_foreign(source: ModelSource, expected: Expected, unexpected: Iterable[str]) -> None:
    """Refuse tensors that say that the files are something else than the configuration says."""
    unexpected = sorted(name for name in unexpected if not expected.is_computed(name))
    reasons = {
        "say that the weights are quantised, and config.json has no quantization_config": SCALES,
        "are those of an adapter": ADAPTER,
    }
    for reason, pattern in reasons.items():
        if found := [name for name in unexpected if pattern.search(name)]:
            raise ModelError(
                f"model {source.model.id}: tensors of its files {reason}: {few(found)}",
                hint="Take the config.json that was saved with these weights, or merge the adapter and save again.",
            )


def _refuse_additions(source: ModelSource, expected: Expected, additions: list[str]) -> None:
    """Refuse weights in layers that are used, for which the class has no place: the states would lack them."""
    if additions:
        raise ModelError(
            f"model {source.model.id}: its files hold weights in layers that are used, for which {expected.class_name} "
            f"has no place: {fold(additions)}",
            hint="The configuration is another model's: take the config.json that was saved with these weights.",
        )


def _left_out(
    source: ModelSource, expected: Expected, unexpected: Iterable[str], tensors: dict[str, StoredTensor]
) -> Iterator[str]:
    """Notes on what the class leaves out; raises ModelError where hidden states depend on it."""
    reported = {name for name in unexpected if not expected.is_computed(name)}
    passed = {key for key in tensors if expected.leaves_out(key)}
    additions = sorted(n for n in reported if expected.in_layer(n))
    _refuse_additions(source, expected, [n for n in additions if not _is_mask(tensors.get(n))])
    beyond = sorted(n for n in reported | passed if expected.in_layer(n) is False)
    others = sorted((reported | passed) - set(beyond) - set(additions))
    if beyond:
        text = source.config.get_text_config(decoder=True)
        ahead, layers = getattr(text, "num_nextn_predict_layers", 0) or 0, len(set(map(numbered, beyond)))
        what = "layers that predict several tokens ahead" if layers <= ahead else "the files' further layers"
        yield f"config.json has {text.num_hidden_layers} decoder layers; {what} are left out: {fold(beyond)}"
    if others:
        yield f"its files hold weights that {expected.class_name} does not use: {fold(others)}"


def _stored_dtype(tensors: dict[str, StoredTensor]) -> str:
    """The dtype of most values."""
    counts = Counter[str]()
    for tensor in tensors.values():
        counts[tensor.dtype] += tensor.num_values
    most = DTYPES.get(counts.most_common(1)[0][0]) if counts else None
    return "" if most is None else dtype_name(most)


def _is_mask(tensor: StoredTensor | None) -> bool:
    """Whether a tensor is a causal mask, as old checkpoints hold one in every layer."""
    return tensor is not None and len(tensor.shape) == 4 and tensor.shape[:2] == (1, 1)


def _holes(tensors: Iterable[str]) -> list[str]:
    """Names that are missing in numbered lists whose other members are there (one of many experts, say)."""
    members: dict[tuple[str, str], set[str]] = {}
    numbers: dict[str, set[str]] = {}
    for name in tensors:
        parts = name.split(".")
        for i, part in enumerate(parts):
            if part.isdigit():
                members.setdefault((".".join(parts[:i]), ".".join(parts[i + 1 :])), set()).add(part)
                numbers.setdefault(".".join(parts[:i]), set()).add(part)
    return sorted(
        f"{before}.{number}.{after}"
        for (before, after), present in members.items()
        if before.endswith("experts")
        for number in numbers[before] - present
    )


def fold(names: list[str]) -> str:
    """Names in few words: those of one layer, or of one part of the model, are counted.

    >>> fold(["lm_head.weight", "model.layers.1.a", "model.layers.1.b"])
    'lm_head.weight, model.layers.1.* (2)'
    """
    groups: dict[str, list[str]] = {}
    for name in sorted(names, key=lambda name: [part.zfill(6) if part.isdigit() else part for part in name.split(".")]):
        found = numbered(name)
        groups.setdefault(f"{found[0]}.{found[1]}" if found else name.split(".", 1)[0], []).append(name)
    return few([f"{group}.* ({len(m)})" if len(m) > 1 else m[0] for group, m in groups.items()])
