"""What a model's groups must hold: the request that decides it, their arrays, and the pending blocks."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from drillcore.backends import MODEL_DISTRIBUTIONS, layers, numerics_hold
from drillcore.backends.source import identity
from drillcore.errors import CommitError
from drillcore.runtime.context import Context
from drillcore.runtime.preflight import Input
from drillcore.runtime.stages.extract.coordinates import column_types, write_columns
from drillcore.runtime.work.blocks import Block, block_sentences, make_blocks, pending, spread_block
from drillcore.store.layout import FORMAT, Shape, choose_shape
from drillcore.store.writer import GroupWriter
from drillcore.system.files import digest
from drillcore.texts.rows import RowTable, row_ids


@dataclass(frozen=True)
class Target:
    """A model and dataset with the blocks that are pending.

    planned, committed: the fingerprint that each shard must have, and the one it had when the run started.
    """

    pair: Input
    writer: GroupWriter
    shape: Shape
    blocks: list[Block]
    planned: list[str]
    committed: list[str]

    @property
    def num_pending(self) -> int:
        """Sentences to extract."""
        return sum(len(b) for b in self.blocks)

    def committed_shards(self, block: Block) -> frozenset[int]:
        """Shards of a block that are committed as they must be; they stay when the block is computed again."""
        numbers = range(block.first_shard, block.first_shard + len(block.fingerprints))
        return frozenset(i for i in numbers if self.committed[i] == self.planned[i])

    @property
    def outdated_shards(self) -> list[int]:
        """Shards whose fingerprint is that of other inputs."""
        return [i for i, stored in enumerate(self.committed) if stored and stored != self.planned[i]]


@dataclass(frozen=True)
class LazyRowIds:
    """Ids of the rows of a dataset, never all of them in memory."""

    rows: RowTable

    def __getitem__(self, rows: slice) -> list[str]:
        return row_ids(self.rows.texts(rows.start, rows.stop))


def request_of(context: Context, name: str) -> dict[str, Any]:
    """What the numerics are resolved for: they are resolved again when any of it changes."""
    source, extract = context.inputs.sources[name], context.job.extract
    settings = extract.model_dump(mode="json", exclude={"too_long", "special_tokens"})
    versions = {k: v for k, v in context.manifest.facts["versions"].items() if k in MODEL_DISTRIBUTIONS}
    hardware = context.executor.hardware()
    return {
        "model": identity(source),
        "dtype": source.model.dtype,
        "layers": list(context.inputs.layers[name]),
        "extract": settings,
        "versions": versions,
        "device": hardware.device,
        "cores": hardware.threads if extract.threads == "auto" else None,
    }


def stored_numerics(context: Context, known: dict[str, Any], request: dict[str, Any]) -> dict[str, Any] | None:
    """Numerics that an earlier run stored, if they are for this request and for the engine that is installed now."""
    if known.get("numerics_for") != digest(request):
        return None
    stored: dict[str, Any] | None = known.get("numerics")
    backend = context.job.extract.backend
    return stored if stored is not None and numerics_hold(backend, stored) else None


def _shape(context: Context, pair: Input) -> Shape:
    name, extract = pair.model.group, context.job.extract
    facts, wanted = context.inputs.sources[name].facts, context.inputs.layers[name]
    names = [layers.layer_name(k, facts.num_layers) for k in wanted]
    shard = None if extract.shard_sentences == "auto" else extract.shard_sentences
    return choose_shape(len(pair.tokens), wanted, names, facts.hidden_size, extract.store_dtype, shard)


def block_size(context: Context, name: str, pairs: list[Input]) -> int:
    """Sentences of a block for this model; stored with the numerics, since packs depend on it."""
    wanted = context.job.extract.block_sentences
    if wanted != "auto":
        return wanted
    hardware, shapes = context.executor.hardware(), [_shape(context, p) for p in pairs]
    largest = max(block_sentences(s.shard, s.sentence_bytes, hardware.memory_bytes) for s in shapes)
    sentences, whole = sum(len(p.tokens) for p in pairs), sum(cost_of(context, p) for p in context.inputs.pairs)
    share = sum(cost_of(context, p) for p in pairs) / max(1, whole)
    return spread_block(largest, sentences, share, hardware.num_workers)


def cost_of(context: Context, pair: Input) -> int:
    """Cost of a dataset, to compare models with: tokens times parameters."""
    return len(pair.tokens.ids_T) * max(1, context.inputs.sources[pair.model.group].facts.num_parameters)


def num_blocks(context: Context, pair: Input, block_sentences: int) -> int:
    """Number of blocks of a dataset with `block_sentences` sentences each."""
    return -(-len(pair.tokens) // _block(_shape(context, pair), block_sentences))


def _block(shape: Shape, block_sentences: int) -> int:
    """Sentences of a block, rounded down to whole shards."""
    return max(shape.shard, block_sentences // shape.shard * shape.shard)


def fit_group(context: Context, pair: Input) -> GroupWriter:
    """Make the group's arrays and coordinates fit the dataset; they do not depend on the numerics."""
    writer = context.store.dataset(pair.model.group, pair.dataset.name)
    writer.ensure(_shape(context, pair), column_types(pair))
    write_columns(writer, pair)
    return writer


def target_of(
    context: Context, pair: Input, writer: GroupWriter, request: dict[str, Any], numerics: dict[str, Any]
) -> Target:
    """Find the pending blocks of a group that fits its dataset."""
    shape = _shape(context, pair)
    common = {
        "format": FORMAT,
        "request": request,
        "policy": asdict(pair.policy),
        "store_dtype": shape.store_dtype,
        "numerics": numerics,
    }
    block = _block(shape, numerics["block_sentences"])
    blocks = make_blocks(pair.tokens, LazyRowIds(pair.rows), common, len(pair.tokens), shape.shard, block)
    planned = [p for b in blocks for p in b.fingerprints]
    writer.plan_fingerprints(planned)
    committed = writer.committed()
    return Target(pair, writer, shape, pending(blocks, committed), planned, committed)


def check_committed(targets: list[Target]) -> None:
    """Check that everything committed is in the store; raises CommitError where something disappeared meanwhile."""
    for target in targets:
        lost = [i for i, stored in enumerate(target.writer.committed()) if stored != target.planned[i]]
        if lost:
            raise CommitError(
                f"{target.writer.group.path}: {len(lost)} of {len(target.planned)} committed shards have disappeared",
                hint="Something else changed the store while the run was under way. Run the same command again.",
            )
