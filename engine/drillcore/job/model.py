"""The models of a job."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from drillcore.job.common import Closed, Name, check_name
from drillcore.job.quantization import Setting, dequantizes, name_of_quantization, settings_of


class Model(Closed):
    """A causal decoder."""

    TAKES: ClassVar = "the id of a model, or a mapping with `id`"

    id: Name
    """Hub id, local directory (relative to the job file, beginning with . or /), or demo/smollm2-135m-instruct."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    as_: Name | None = Field(default=None, alias="as")
    """Name of the model's group in the store and in pictures; by default the id with / written --."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] | None = None
    """Overrides extract.dtype for this model."""
    device_map: str | None = None
    """Passed to transformers, for a model larger than one device."""
    offload: bool = False
    """Let device_map put what fits on no GPU on the CPU or the disk, which is slow. Off: such a model is refused."""
    adapter: Name | None = None
    """Directory (beginning with . or /) or hub id of an adapter of peft that is put on the model."""
    adapter_revision: str | None = None
    """Branch, tag or commit of the adapter on the hub."""
    merge_adapter: bool = False
    """Add the adapter to the weights, which is faster; below float32 it rounds them. Off: as it was trained."""
    tokenizer: Name | None = None
    """Directory or hub id of another tokenizer than the model's own."""
    gguf_file: Name | None = None
    """Name of a GGUF file in the directory `id`, whose weights are taken, dequantised, instead of safetensors."""
    quantization: str | dict[str, Setting] | None = None
    """Quantise the weights while they are loaded: bitsandbytes-8bit, torchao-int8, ... or a mapping with `method` and
    its settings in transformers. A checkpoint that is stored quantised needs none; fp8-dequantized makes plain
    numbers of one in DeepSeek-V3's format."""
    trust_remote_code: bool = False
    """Run code that the model's repository ships. Off unless you trust it."""
    random_weights: bool = False
    """Keep the architecture and draw the weights at random (seed 0): a control."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"id": value} if isinstance(value, str) else value

    @field_validator("as_")
    @classmethod
    def _name(cls, value: str | None) -> str | None:
        return None if value is None else check_name(value)

    @field_validator("quantization")
    @classmethod
    def _quantization(cls, value: str | dict[str, Setting] | None) -> str | dict[str, Setting] | None:
        if value is not None:
            settings_of(value)
        return value

    @model_validator(mode="after")
    def _quantization_of_plain_weights(self) -> Model:
        others = {
            "random_weights": "draws weights that nothing was trained on",
            "gguf_file": "holds weights that are quantised already",
            "merge_adapter": "adds to plain weights; leave it out, and the adapter stays beside the quantised ones",
        }
        if self.quantization is not None and dequantizes(self.quantization):
            del others["merge_adapter"]
        for name, why in others.items():
            if self.quantization is not None and getattr(self, name):
                raise ValueError(f"quantization: does not go with {name}, which {why}")
        return self

    @model_validator(mode="after")
    def _offload_of_a_spread_model(self) -> Model:
        if self.offload and self.device_map is None:
            raise ValueError("offload: is what device_map may do; set device_map: auto too")
        return self

    @field_validator("gguf_file")
    @classmethod
    def _gguf_file(cls, value: str | None) -> str | None:
        if value is not None and (PurePath(value).name != value or not value.endswith(".gguf")):
            raise ValueError(f"must be the name of a file in the model's directory, ending in .gguf (given: {value})")
        return value

    @model_validator(mode="after")
    def _gguf_file_of_weights(self) -> Model:
        if self.gguf_file is None:
            return self
        if self.random_weights or self.trust_remote_code or self.revision:
            raise ValueError("gguf_file: does not go with random_weights, trust_remote_code or revision")
        if not is_local(self.id):
            raise ValueError(
                "gguf_file: id must be the directory that holds it, beginning with . or /; download it first"
            )
        return self

    @model_validator(mode="after")
    def _adapter_of_trained_weights(self) -> Model:
        if self.adapter is not None and self.random_weights:
            raise ValueError("adapter: belongs to trained weights, and random_weights draws others")
        if self.adapter_revision is not None and (self.adapter is None or is_local(self.adapter)):
            raise ValueError("adapter_revision: is that of an adapter on the hub, whose id `adapter` names")
        return self

    @property
    def group(self) -> str:
        """Name of the model's group in the store."""
        if self.as_ is not None:
            return self.as_
        of_adapter = "" if self.adapter is None else "+" + _group_name(self.adapter)
        of_file = "" if self.gguf_file is None else "--" + self.gguf_file.removesuffix(".gguf")
        quantised = "" if self.quantization is None else "--" + name_of_quantization(self.quantization)
        return _group_name(self.id) + of_file + quantised + of_adapter + ("--random" if self.random_weights else "")


def is_local(model_id: str) -> bool:
    """Whether a model id names a directory rather than a hub repository.

    >>> is_local("./my-model"), is_local("HuggingFaceTB/SmolLM2-135M")
    (True, False)
    """
    return model_id.startswith((".", "/", "~"))


def _group_name(name: str) -> str:
    """The last part of a folder's name, or a hub id with / written --."""
    return name.rstrip("/").rsplit("/", 1)[-1] if is_local(name) else name.replace("/", "--")
