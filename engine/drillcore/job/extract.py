"""How a job takes hidden states."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from drillcore.job.choices import ON_OFF, OneOf
from drillcore.job.common import MOST, Auto, Closed, Layer
from drillcore.job.positions import LAST, Position, distinct
from drillcore.system.tables import BACKENDS


class Extract(Closed):
    """How hidden states are taken."""

    backend: Annotated[str, OneOf(BACKENDS)] = "transformers"
    """Engine that runs the model; auto measures transformers and vllm, where installed, and takes the faster one."""
    layers: Literal["all", "hf"] | tuple[Layer, ...] = "all"
    """all = 0..L+1; hf = 0..L-1 and L+1, as transformers returns them; or a list of layers: numbers (-1 is the last
    one, final_norm) or names (embed, block_12, final_norm)."""
    positions: tuple[Position, ...] = (LAST,)
    """Which tokens of each sentence: last, mean, {last: 4}, {span: [from, to]}, {text: field}, {after: "Answer:"}, all,
    turns. Each is a group of its own, DATASET~NAME, filled in the same passes."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type the model computes in: auto is bfloat16 on CUDA, float32 on CPU."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    store_dtype: Literal["float32", "float16"] = "float32"
    """Type of the stored hidden states."""
    layout: Literal["auto", "packed", "padded", "equal"] = "auto"
    """Packs share prefixes exactly; auto takes padded batches only where a model cannot take packs, and batches of
    sentences of equal length, without padding, only where it cannot take those."""
    batch_tokens: Auto | Annotated[int, Field(ge=1, le=2**22)] = "auto"
    """Nodes computed in one forward pass."""
    shard_sentences: Auto | Annotated[int, Field(ge=1, le=2**20)] = "auto"
    """Sentences in one shard of the store; a power of two."""
    block_sentences: Auto | Annotated[int, Field(ge=1, le=MOST)] = "auto"
    """Sentences whose packs are built together; a multiple of the shard."""
    too_long: Literal["error", "truncate"] = "error"
    """What to do with a sentence beyond the model's context: stop, or keep its first tokens and count it."""
    special_tokens: Literal["auto", "none"] = "auto"
    """auto: as the tokenizer adds them."""
    attention: Literal["auto", "dense", "flex"] = "auto"
    """How packs attend: auto is flex (FlexAttention, block masks) on CUDA; on a CPU it adds a mask where packs are
    narrow, and leaves out what a query does not see where they are wide. dense adds a mask everywhere."""
    compile: Annotated[Literal["auto", "on", "off"], ON_OFF] = "auto"
    """Compile decoder layers (transformers): auto on CUDA. What cannot be compiled runs as it is, with a note."""
    merge: Annotated[Literal["auto", "on", "off"], ON_OFF] = "auto"
    """Compute linear layers that share their input in one product (transformers): query, key and value; gate and up.
    auto is off, until a measurement shows where it pays."""
    weights: Literal["resident", "streamed", "auto"] = "resident"
    """Where a model's layers are (transformers): resident holds all of them on the device; streamed reads one after the
    other from the files, for as many batches as memory holds, so that a model may be larger than memory; auto streams
    where it does not fit. The states are the same."""
    tensor_parallel: Annotated[int, Field(ge=1, le=1024)] = 1
    """GPUs of a machine that share one model (vllm, and transformers by its own plan of the architecture); on a CPU,
    processes."""
    threads: Auto | Annotated[int, Field(ge=1, le=1024)] = "auto"
    """CPU threads of the forward pass. Bits differ between numbers of threads; auto is this machine's cores."""

    @field_validator("shard_sentences")
    @classmethod
    def _power(cls, value: Any) -> Any:
        if value != "auto" and value & (value - 1):
            raise ValueError("must be a power of two")
        return value

    @field_validator("layers")
    @classmethod
    def _layers(cls, value: Any) -> Any:
        if isinstance(value, tuple):
            if not value:
                raise ValueError("names no layer")
            if len(set(value)) != len(value):
                raise ValueError("names a layer twice")
            # Where the others stand depends on the model.
            return tuple(sorted(value)) if all(isinstance(k, int) and k >= 0 for k in value) else value
        return value

    @field_validator("positions")
    @classmethod
    def _positions(cls, value: tuple[Position, ...]) -> tuple[Position, ...]:
        return distinct(value)

    @model_validator(mode="after")
    def _agrees(self) -> Extract:
        shard, block = self.shard_sentences, self.block_sentences
        if shard != "auto" and block != "auto" and block % shard:
            raise ValueError("block_sentences must be a multiple of shard_sentences")
        if self.compile == "on" and (self.attention == "dense" or self.layout not in ("auto", "packed")):
            raise ValueError("compile: on needs packs, and attention: flex or auto")
        if self.weights != "resident":
            for name, value in (("tensor_parallel", 1), ("compile", "auto"), ("merge", "auto")):
                if getattr(self, name) not in (value, "off"):
                    which = f"{name}: {getattr(self, name)}"
                    remedy = f"take out `{name}`, or set weights: resident"
                    raise ValueError(f"weights: {self.weights} does not go with {which}; {remedy}")
            if self.backend != "transformers":
                remedy = "set that, or weights: resident"
                raise ValueError(f"weights: {self.weights} needs backend: transformers, not {self.backend}; {remedy}")
        return self
