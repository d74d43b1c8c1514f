"""Finds a model by its id: where its files are, its facts, and its identity.

Reads configurations and file digests, never weights.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from drillcore.backends import MODEL_DISTRIBUTIONS
from drillcore.backends.adapters import Adapter, find_adapter, refuse_lone_adapter
from drillcore.backends.base import ModelFacts
from drillcore.backends.configuration import bounded_building, read_config, read_raw, refuse_beyond, refuse_odd_files
from drillcore.backends.demo_model import DEMO_ID, ensure_demo_model
from drillcore.backends.gguf_files import check_gguf
from drillcore.backends.in_memory import HeldModel, held_model
from drillcore.backends.lengths import longest_sentence
from drillcore.backends.weight_files import weight_files
from drillcore.errors import MissingExtraError, ModelError
from drillcore.job.common import expand
from drillcore.job.model import Model, is_local
from drillcore.job.quantization import settings_of
from drillcore.system.bounds import real_path
from drillcore.system.cached import remembered_digest
from drillcore.system.files import digest
from drillcore.system.machine import total_memory_bytes
from drillcore.system.quiet import quiet_transformers
from drillcore.tokens.tokenizer import Tokenizer, has_no_file

HUB_PATTERNS = ["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja", "*.tiktoken"]


@dataclass(frozen=True)
class ModelSource:
    """A model that was found.

    location: directory or hub id to give to transformers; revision: commit on the hub, or None. held: the model itself,
    where the calling program has loaded it; `location` then holds only its tokenizer. tokenizer_at: directory or hub id
    of another tokenizer than the model's own. adapter: of peft, which the job names or which lies beside the model.
    """

    model: Model
    location: str
    revision: str | None
    config: Any
    facts: ModelFacts
    held: HeldModel | None = None
    tokenizer_at: str | None = None
    adapter: Adapter | None = None
    _tokenizers: dict[str, Tokenizer] = field(default_factory=dict, init=False, repr=False, compare=False)

    def tokenizer(self, special_tokens: str) -> Tokenizer:
        """The model's tokenizer, or the one that the job names instead; raises ModelError where it cannot be read.

        special_tokens: auto or none, as in a job.
        """
        if special_tokens not in self._tokenizers:
            own = self.tokenizer_at is None
            arguments = self.arguments() if own else {"trust_remote_code": self.model.trust_remote_code}
            if own and self.model.gguf_file is not None and has_no_file(self.location):
                arguments |= self.gguf_argument()
            self._tokenizers[special_tokens] = Tokenizer(
                self.tokenizer_at or self.location, special_tokens, **arguments
            )
        return self._tokenizers[special_tokens]

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments for from_pretrained."""
        arguments: dict[str, Any] = {"trust_remote_code": self.model.trust_remote_code}
        return arguments if self.revision is None else {**arguments, "revision": self.revision}

    def gguf_argument(self) -> dict[str, str]:
        """The keyword argument of from_pretrained that names a GGUF file, where the job does."""
        return {} if self.model.gguf_file is None else {"gguf_file": self.model.gguf_file}

    def attention(self) -> dict[str, str]:
        """Eager attention for a model that caps its attention scores: sdpa would leave out the cap and only warn."""
        capped = getattr(self.config.get_text_config(decoder=True), "attn_logit_softcapping", None)
        return {"attn_implementation": "eager"} if capped else {}

    def build_arguments(self) -> dict[str, Any]:
        """Keyword arguments for from_config."""
        arguments: dict[str, Any] = {"trust_remote_code": self.model.trust_remote_code, **self.attention()}
        if self.revision is not None and self._code() and "--" not in self._code() and not self._has_own_config():
            arguments["code_revision"] = self.revision
        return arguments

    def auto_class(self) -> Any:
        """The class that loads the model for its text: of a causal decoder, else of a model of images and text."""
        from transformers import AutoModelForCausalLM
        from transformers.dynamic_module_utils import get_class_from_dynamic_module

        if self._code() and self._has_own_config():
            # transformers keeps the first code that it saw for a configuration, whatever folder the model is in and
            # however its files have changed since.
            own: Any = get_class_from_dynamic_module(self._code(), self.location, revision=self.revision)
            own.register_for_auto_class("AutoModelForCausalLM")
            AutoModelForCausalLM.register(type(self.config), own, exist_ok=True)
        return AutoModelForCausalLM if self._code() else known_class(self.config)

    def new_model(self, **settings: Any) -> Any:
        """The model with new weights. settings: dtype."""
        chosen, config, arguments = self.auto_class(), copy.deepcopy(self.config), self.build_arguments()
        if hasattr(chosen, "from_config"):
            return chosen.from_config(config, **arguments, **settings)
        # A class itself, not one that chooses a class, takes no code from elsewhere.
        own = {k: v for k, v in arguments.items() if k not in ("trust_remote_code", "code_revision")}
        return chosen._from_config(config, **own, **settings)

    def _code(self) -> str:
        """Where the class is in code that the model ships; empty where that is not to be run."""
        named = getattr(self.config, "auto_map", None) or {}
        return str(named.get("AutoModelForCausalLM", "")) if self.model.trust_remote_code else ""

    def _has_own_config(self) -> bool:
        return not type(self.config).__module__.startswith("transformers.")


def locate(model: Model, base: Path) -> ModelSource:
    """Find a model by its id; relative directories start from `base`.

    Raises ModelError, with the remedy, where it is unknown, out of reach, gated, not a causal decoder, or a directory
    without safetensors weights; MissingExtraError where a package that reads it is not installed.
    """
    held = held_model(model.id)
    if held is not None:
        return _checked(model, _source_in_memory(model, held, base))
    missing = [name for name in MODEL_DISTRIBUTIONS if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"reading a model needs {missing[0]}, which is not installed",
            hint="pip install 'drillcore[transformers]'",
        )
    if model.id == DEMO_ID:
        location = str(ensure_demo_model())
    elif is_local(model.id):
        location = _local(model, base)
    elif model.id.startswith("demo/"):
        raise ModelError(f"model {model.id} is unknown", hint=f"The only demo model is {DEMO_ID}.")
    else:
        _refuse_folder(model, base)
        location = model.id
    with bounded_building(model.id):
        config = read_config(model, location)
    commit = getattr(config, "_commit_hash", None)
    _refuse_unless_causal(model, config)
    if Path(location).is_dir() and not model.random_weights and model.gguf_file is None:
        weight_files(model.id, Path(location), getattr(config, "transformers_weights", None))
    adapter = find_adapter(model, location, base)
    revision = (commit or model.revision) if location == model.id else None
    tokenizer = _other_tokenizer(model, base)
    source = ModelSource(model, location, revision, config, _facts(config), tokenizer_at=tokenizer, adapter=adapter)
    with bounded_building(model.id):
        source = replace(source, facts=_counted(source))
    return _checked(model, source)


def _other_tokenizer(model: Model, base: Path) -> str | None:
    """Where the tokenizer is that the job names; None for the model's own."""
    if model.tokenizer is None or not is_local(model.tokenizer):
        return model.tokenizer
    folder = real_path(base / expand(model.tokenizer))
    if not folder.is_dir():
        what = f"model {model.id}: there is no folder {folder}, which its tokenizer names"
        raise ModelError(what, hint="Name a folder with tokenizer files, relative to the job file, or a hub id.")
    return str(folder)


def _source_in_memory(model: Model, held: HeldModel, base: Path) -> ModelSource:
    config = copy.deepcopy(held.causal.config)
    _refuse_unless_causal(model, config)
    source = ModelSource(model, held.folder, None, config, _facts(config), held, _other_tokenizer(model, base))
    return replace(source, facts=_count(source, held.causal))


def _checked(model: Model, source: ModelSource) -> ModelSource:
    """The source; raises ModelError where its configuration does not say what must be known."""
    facts = source.facts
    if not (facts.num_layers and facts.hidden_size and facts.vocab_size):
        raise ModelError(
            f"model {model.id}: its configuration does not say how many layers it has, how wide they are and for how "
            f"many tokens (its type is {facts.model_type})",
            hint="It must name num_hidden_layers, hidden_size and vocab_size.",
        )
    return source


def _refuse_folder(model: Model, base: Path) -> None:
    """Raise ModelError where an id of the hub is a folder's name too: nobody could tell which is meant."""
    beside = (base / model.id / "config.json").is_file()
    if beside or Path(model.id).is_dir():
        where = "beside the job file" if beside else f"in the working directory ({Path.cwd()})"
        raise ModelError(
            f"model {model.id}: there is a folder of this name {where}",
            hint=f"Write ./{model.id} for it; for the model on the hub, call the folder something else."
            if beside
            else "Write its path, relative to the job file and beginning with ./; or call the folder something else.",
        )


def _local(model: Model, base: Path) -> str:
    """The folder that a model's id names; raises ModelError where it holds no model that can be read."""
    named = expand(model.id)
    if str(named).startswith("~"):
        user = named.parts[0].removeprefix("~")
        raise ModelError(f"model {model.id}: this machine has no user {user}", hint="Write the whole path.")
    folder = real_path(base / named)
    if model.gguf_file is not None:
        refuse_odd_files(model.id, folder)
        check_gguf(model.id, folder / model.gguf_file)
        return str(folder)
    if not (folder / "config.json").exists() and not (folder / "config.json").is_symlink():
        refuse_lone_adapter(model, folder)
        raise ModelError(
            f"model {model.id}: "
            + (f"{folder} holds no config.json" if folder.exists() else f"there is no folder {folder}"),
            hint="Name a directory written by save_pretrained, relative to the job file.",
        )
    refuse_odd_files(model.id, folder)
    refuse_beyond(model.id, read_raw(model.id, folder), None if model.random_weights else folder)
    return str(folder)


def known_class(config: Any) -> Any:
    """The class of transformers that loads a model of this configuration for its text, or None.

    The text part of a larger model, saved alone, is known by the class that its configuration names.
    """
    import transformers
    from transformers.models.auto import modeling_auto as auto

    kind = type(config)
    if kind in auto.MODEL_FOR_CAUSAL_LM_MAPPING or "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {}):
        return transformers.AutoModelForCausalLM
    if kind in auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return transformers.AutoModelForImageTextToText
    named = [name for name in getattr(config, "architectures", None) or () if name.endswith("ForCausalLM")]
    return getattr(transformers, named[0], None) if named else None


def _refuse_unless_causal(model: Model, config: Any) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    kind = config.model_type
    masked = kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False)
    if getattr(config, "is_encoder_decoder", False):
        reason = f"is an encoder with a decoder, not a decoder alone (its type is {kind})"
    elif masked or known_class(config) is None:
        reason = f"is not a causal decoder (its type is {kind})"
    else:
        return
    raise ModelError(
        f"model {model.id} {reason}",
        hint="Only decoders that read from left to right have a last token that has seen the whole sentence.",
    )


def _facts(config: Any) -> ModelFacts:
    text = config.get_text_config(decoder=True)
    return ModelFacts(
        model_type=config.model_type,
        num_layers=int(getattr(text, "num_hidden_layers", 0)),
        hidden_size=int(getattr(text, "hidden_size", 0)),
        vocab_size=int(getattr(text, "vocab_size", 0)),
        max_tokens=longest_sentence(config),
        num_parameters=0,
    )


def _counted(source: ModelSource) -> ModelFacts:
    """The facts with what is counted on the meta device, which allocates nothing: layers, and parameters of a node.

    Raises ModelError where the model has no list of decoder layers.
    """
    import torch

    try:
        with quiet_transformers(), torch.device("meta"):
            causal = source.new_model()
    except MemoryError:
        raise
    except Exception:  # remote code and odd configurations, which are examined again where they are loaded
        return source.facts
    num_bytes = 4 * sum(p.numel() for p in causal.parameters())
    if source.model.random_weights and num_bytes > total_memory_bytes():
        raise ModelError(
            f"model {source.model.id}: its random weights would take {num_bytes / 2**30:,.0f} GiB, more than this "
            f"machine has ({total_memory_bytes() / 2**30:,.0f} GiB)",
            hint="Take a smaller configuration.",
        )
    return _count(source, causal)


def _count(source: ModelSource, causal: Any) -> ModelFacts:
    """The facts with the layers and parameters of a model; raises ModelError where it has no list of layers."""
    import torch

    from drillcore.backends.transformers.parts import find_parts

    try:
        parts = find_parts(causal)
    except ModelError as error:
        raise ModelError(f"model {source.model.id}: {error}", hint=error.hint) from error
    tables = {id(p) for m in parts.decoder.modules() if isinstance(m, torch.nn.Embedding) for p in m.parameters()}
    num_parameters = sum(p.numel() for p in parts.decoder.parameters() if id(p) not in tables)
    return replace(source.facts, num_layers=len(parts.layers), num_parameters=num_parameters)


def identity(source: ModelSource, *, afresh: bool = False) -> dict[str, Any]:
    """What identifies the model in fingerprints. Downloads a hub model's files that are not in the cache.

    afresh: read every file, whatever digest is remembered of it, and download nothing; FileNotFoundError where that
    would be needed. Raises ModelError where there are no safetensors weights.
    """
    digest_of = partial(remembered_digest, afresh=True) if afresh else remembered_digest
    named: dict[str, Any] = {"config": digest(_config_bytes(source.config))}
    if source.held is not None:
        return {**named, "in_memory": source.held.name}
    if source.model.trust_remote_code or hasattr(source.config, "auto_map"):
        named["code"] = _code_digests(source, digest_of, afresh) if source.model.trust_remote_code else {}
    if source.model.random_weights:
        return {**named, "random_weights": 0}
    folder = Path(source.location)
    if not folder.is_dir():
        folder = snapshot(source, local_files_only=afresh)
        named |= {"id": source.model.id, "revision": source.revision}
    if source.adapter is not None:
        named |= source.adapter.identity(digest_of, merged=source.model.merge_adapter)
    if source.model.gguf_file is not None:
        return {**named, "gguf": {source.model.gguf_file: digest_of(folder / source.model.gguf_file)}}
    if source.model.quantization is not None:
        named |= {"quantization": settings_of(source.model.quantization)}
    weight_files(source.model.id, folder, getattr(source.config, "transformers_weights", None))
    return {**named, "weights": {w.name: digest_of(w) for w in sorted(folder.glob("*.safetensors"))}}


def _code_digests(source: ModelSource, digest_of: Callable[[Path], str], afresh: bool) -> dict[str, str]:
    """Digests of the Python files that the model runs; those of its own repository on the hub go by its commit."""
    from huggingface_hub import snapshot_download

    folder, code = Path(source.location), {}
    if folder.is_dir():
        inside = (p.relative_to(folder) for p in sorted(folder.rglob("*.py")))
        code = {p.as_posix(): digest_of(folder / p) for p in inside if not p.parts[0].startswith((".", "_"))}
    named = getattr(source.config, "auto_map", None) or {}
    for repository in sorted(
        {name.split("--")[0] for name in named.values() if isinstance(name, str) and "--" in name}
    ):
        other = Path(snapshot_download(repository, allow_patterns="*.py", local_files_only=afresh))
        code |= {f"{repository}--{p.name}": digest_of(p) for p in sorted(other.glob("*.py"))}
    return code


def snapshot(source: ModelSource, **settings: Any) -> Path:
    """The folder of a hub model's files in the cache, downloaded where they are not there."""
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(source.location, revision=source.revision, allow_patterns=HUB_PATTERNS, **settings))


def weights_folder(source: ModelSource) -> Path | None:
    """The folder that holds a model's weights; None for a hub model that is not in the cache as a whole."""
    folder = Path(source.location)
    if folder.is_dir():
        return folder
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = snapshot(source, local_files_only=True)
        weight_files(source.model.id, folder, getattr(source.config, "transformers_weights", None))
    except (LocalEntryNotFoundError, ModelError):
        return None
    return folder


def _config_bytes(config: Any) -> dict[str, Any]:
    """The configuration without the entries that only say where and by which version it was read."""
    skip = ("_name_or_path", "transformers_version", "_commit_hash", "dtype")
    return {k: v for k, v in config.to_diff_dict().items() if k not in skip}
