"""What a model's groups must hold: the request that decides it, their arrays, and the pending blocks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from drillcore.backends import MODEL_DISTRIBUTIONS, numerics_hold
from drillcore.backends.device import Hardware
from drillcore.backends.source import identity
from drillcore.errors import CommitError, StoreError
from drillcore.job.extract import Extract
from drillcore.runtime.context import Context
from drillcore.runtime.preflight import Input, Inputs
from drillcore.runtime.stages.extract.coordinates import column_types, write_columns
from drillcore.runtime.stages.extract.recipes import ATTRIBUTE, Recipe, recorded
from drillcore.runtime.stages.extract.standing import Asked, Standing, block_of, blocks_of, shape_for
from drillcore.runtime.wanted import wanted_of
from drillcore.runtime.work.blocks import Block, Stretch, block_sentences, spread_block
from drillcore.store.attributes import attributes_of
from drillcore.store.freshness import WANTED
from drillcore.store.layout import Shape
from drillcore.store.writer import GroupWriter
from drillcore.system.files import digest

# Fields that every request holds. One that was added later is left out while it has its default, so that stores which
# were written before stay up to date.
ALWAYS = frozenset(
    {"attention", "backend", "batch_tokens", "block_sentences", "device", "dtype"}
    | {"layers", "layout", "shard_sentences", "store_dtype", "tensor_parallel", "threads"}
)


@dataclass(frozen=True)
class Target:
    """A model and dataset with the blocks that are pending.

    every: all blocks; none where all are committed. planned, committed: the fingerprint that each shard must have,
    and the one it had when the run started. begun: of the shards that hold their first rows, which stay, the row after
    those.
    """

    pair: Input
    writer: GroupWriter
    shape: Shape
    blocks: list[Block]
    every: list[Block]
    planned: list[str]
    committed: list[str]
    begun: dict[int, int] = field(default_factory=dict)

    @property
    def num_pending(self) -> int:
        """Sentences to extract."""
        return sum(s.stop - s.start for b in self.blocks for s in b.stretches if self.lacks(b, s))

    def lacks(self, block: Block, stretch: Stretch) -> bool:
        """Whether rows of a stretch of a block are neither committed nor among those that a shard has begun with."""
        kept = self.committed_shards(block)
        for shard in block.shards:
            first, end = self.shape.bounds(shard)
            first = max(first, stretch.start, self.begun.get(shard, 0))
            if shard not in kept and first < min(end, stretch.stop):
                return True
        return False

    def committed_shards(self, block: Block) -> frozenset[int]:
        """Shards of a block that are committed as they must be; they stay when the block is computed again."""
        return frozenset(i for i in block.shards if self.committed[i] == self.planned[i])


def request_of(inputs: Inputs, name: str, hardware: Hardware, versions: dict[str, str]) -> dict[str, Any]:
    """What the numerics of a model are resolved for: they are resolved again when any of it changes.

    versions: of all packages.
    """
    source, extract = inputs.sources[name], inputs.loaded.job.extract
    defaults = Extract().model_dump(mode="json")
    settings = extract.model_dump(mode="json", exclude={"too_long", "special_tokens", "positions"})
    spread = {"device_map": source.model.device_map} if source.model.device_map else {}
    return {
        **spread,
        "model": identity(source),
        "dtype": source.model.dtype,
        "layers": list(inputs.layers[name]),
        "extract": {k: v for k, v in settings.items() if k in ALWAYS or v != defaults[k]},
        "versions": {k: v for k, v in versions.items() if k in MODEL_DISTRIBUTIONS},
        "device": hardware.device,
        "cores": hardware.threads if extract.threads == "auto" else None,
    }


def asked_of(context: Context, name: str) -> Asked:
    """What the job asks of a model's groups, on this executor's hardware."""
    hardware, facts = context.executor.hardware(), context.manifest
    known = attributes_of(context.store.model(name))
    return asked(context.inputs, name, known, hardware, facts.facts["versions"], facts.earlier_versions)


def asked(
    inputs: Inputs,
    name: str,
    known: dict[str, Any],
    hardware: Hardware,
    versions: dict[str, str],
    earlier_versions: dict[str, str],
) -> Asked:
    """The same on some hardware. known: attributes of the model's group. versions: of all packages, now and before."""
    request = request_of(inputs, name, hardware, versions)
    stored = stored_numerics(inputs.loaded.job.extract.backend, known, request, ())
    fits = block_size(inputs, name, hardware)
    block = fits if stored is None else min(fits, int(stored["block_sentences"]))
    return Asked(inputs, request, hardware, earlier_versions, block)


def stored_numerics(
    backend: str, known: dict[str, Any], request: dict[str, Any], recipes: Iterable[Recipe]
) -> dict[str, Any] | None:
    """Numerics that an earlier run stored, if they are for this request and for the engine that is installed now.

    known: attributes of the model's group, which hold those of the last request. recipes: of its datasets' groups.
    """
    stored = known.get("numerics") if known.get("numerics_for") == digest(request) else None
    found: dict[str, Any] | None = stored or next((r.numerics for r in recipes if r.request == request), None)
    return found if found is not None and numerics_hold(backend, found) else None


def block_size(inputs: Inputs, name: str, hardware: Hardware) -> int:
    """Sentences of a block for this model; stored with the numerics, since packs depend on it."""
    wanted = inputs.loaded.job.extract.block_sentences
    if wanted != "auto":
        return wanted
    shapes = [[shape_for(inputs, p) for p in together] for together in inputs.datasets_of(name)]
    # Of the groups that are filled in the same passes, all states are in memory at the same time.
    each = [(together[0].shard, sum(map(_bytes_of_sentence, together))) for together in shapes]
    largest = max(block_sentences(shard, size, hardware.memory_bytes) for shard, size in each)
    costs = {n: sum(cost_of(inputs, p) for sets in inputs.sentences_of(n) for p in sets) for n in inputs.sources}
    sentences = sum(len(together[0].tokens) for together in inputs.datasets_of(name))
    share = costs[name] / max(1, sum(costs.values()))
    return spread_block(largest, sentences, share, hardware.num_workers)


def _bytes_of_sentence(shape: Shape) -> int:
    """Bytes of all rows of a sentence, on average."""
    rows = 1.0 if shape.rows is None else shape.num_sentences / max(1, shape.rows.num_sentences)
    return math.ceil(shape.sentence_bytes * rows)


def cost_of(inputs: Inputs, pair: Input) -> int:
    """Cost of a dataset, to compare models with: tokens times parameters."""
    return len(pair.tokens.ids_T) * max(1, inputs.sources[pair.model.group].facts.num_parameters)


def num_blocks(standing: Standing, block_sentences: int) -> int:
    """Number of blocks of a dataset with `block_sentences` sentences each."""
    if standing.shape.rows is not None:
        return len(standing.shape.rows.rows_B)
    return -(-standing.shape.num_sentences // block_of(standing.shape, block_sentences))


def fit_group(context: Context, standing: Standing) -> GroupWriter:
    """Make the group's arrays and coordinates fit the dataset; they do not depend on the numerics.

    Recipes that agree with the job are recorded, also those of a group whose version of drillcore did not.
    """
    pair = standing.pair
    writer = context.store.dataset(pair.model.group, pair.dataset.name)
    writer.ensure(standing.shape, column_types(pair), pair.dataset.position.record())
    wanted = wanted_of(context.job, pair.dataset)
    writer.describe(**{ATTRIBUTE: [r.record() for r in standing.recipes], WANTED: wanted})
    write_columns(writer, pair, context.inputs.tokenizers[pair.model.group])
    return writer


def target_of(standing: Standing, writer: GroupWriter) -> Target | None:
    """A group that fits its dataset, if every shard is committed with one of its recipes; None otherwise."""
    committed = writer.committed()
    if not all(standing.stays(i, fingerprint) for i, fingerprint in enumerate(committed)):
        return None
    writer.plan_fingerprints(committed)
    return Target(standing.pair, writer, standing.shape, [], [], committed, committed)


def pending_of(context: Context, standing: Standing, recipe: Recipe, writer: GroupWriter | None) -> Target:
    """Find the pending blocks of a group under the recipe of this run, and make the group ready for them.

    writer: where the group fits its dataset already; it is made to fit otherwise. Raises StoreError, before anything is
    taken away, where a group turns out to hold states of another kind, and the run may not overwrite them.
    """
    pair, shape = standing.pair, standing.shape
    blocks = blocks_of(pair, recipe, shape)
    wanted = [fingerprint for b in blocks for fingerprint in b.fingerprints]
    begins = {
        i: {b.fingerprint: b.stop for b in found} for k in blocks for i, found in enumerate(k.begun, k.first_shard)
    }
    _refuse_other_states(context, standing, recipe, [*wanted, *(f for found in begins.values() for f in found)])
    if writer is None:
        before = context.store.dataset(pair.model.group, pair.dataset.name)
        known = zip(standing.claimed, wanted, strict=False)
        stay = [c == w or standing.stays(i, c) or c in begins.get(i, ()) for i, (c, w) in enumerate(known)]
        before.retract([i for i, (c, stays) in enumerate(zip(standing.claimed, stay, strict=False)) if c and not stays])
        writer = fit_group(context, standing)
    committed = writer.committed()
    planned = [c if standing.stays(i, c) else w for i, (c, w) in enumerate(zip(committed, wanted, strict=True))]
    open_shards = [i for i, stored in enumerate(committed) if stored and stored != planned[i]]
    begun = {i: begins[i][committed[i]] for i in open_shards if committed[i] in begins.get(i, ())}
    writer.plan_fingerprints(planned, {i: committed[i] for i in begun})
    writer.retract([i for i in open_shards if i not in begun])
    pending = [b for b in blocks if any(committed[i] != planned[i] for i in b.shards)]
    if pending:
        others = [r for r in recorded(attributes_of(writer.group)) if r != recipe]
        writer.describe(**{ATTRIBUTE: [r.record() for r in (*others, recipe)]})
    return Target(pair, writer, shape, pending, blocks, planned, committed, begun)


def _refuse_other_states(context: Context, standing: Standing, recipe: Recipe, wanted: list[str]) -> None:
    """Raise StoreError where states would be lost that could not be judged before the model was loaded."""
    if context.overwrite:
        return
    dtype = recipe.numerics.get("dtype")
    others = {r.numerics.get("dtype") for r in standing.recipes} - {dtype}
    unknown = not standing.known and any(c and c not in wanted for c in standing.claimed)
    if unknown or (others and 0 < standing.num_kept < standing.shape.num_shards):
        what = "with other settings or another model" if unknown else f"in {', '.join(map(str, others))}, not {dtype}"
        raise StoreError(
            f"{standing.path}: the states in the store {context.store.location.address} were computed {what}",
            hint="--overwrite computes them again; a store of its own (--store) keeps them.",
        )


def check_committed(targets: list[Target]) -> None:
    """Check that everything committed is in the store; raises CommitError where something disappeared meanwhile."""
    for target in targets:
        lost = [i for i, stored in enumerate(target.writer.committed()) if stored != target.planned[i]]
        if lost:
            raise CommitError(
                f"{target.writer.group.path}: {len(lost)} of {len(target.planned)} committed shards have disappeared",
                hint="Something else changed the store while the run was under way. Run the same command again.",
            )
        if target.begun:
            target.writer.plan_fingerprints(target.planned)  # nothing is begun any more
