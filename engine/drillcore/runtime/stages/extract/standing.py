"""What a group of the store holds, seen from the job: which shards stay, and what would be lost."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

import zarr
from zarr.abc.store import Store

from drillcore.backends import layers
from drillcore.backends.device import Hardware
from drillcore.errors import DamageError
from drillcore.runtime.positions import Placed
from drillcore.runtime.preflight import Input, Inputs
from drillcore.runtime.stages.extract.recipes import Recipe, recorded, recover
from drillcore.runtime.work.blocks import Block, make_blocks, make_row_blocks
from drillcore.store.arrays import is_headline
from drillcore.store.attributes import read_attributes
from drillcore.store.committed import claimed_shards
from drillcore.store.layout import Rows, Shape, choose_shape, read_array, shape_of
from drillcore.store.places.files import read_file
from drillcore.store.record import read_record
from drillcore.texts.rows import row_ids

# A dataset that grows keeps its shards while they are few, or not tiny beside those of a new store; otherwise what it
# had, which is little beside what it has now, is computed again with it.
FEW_SHARDS, TINY_SHARD = 256, 4


@dataclass(frozen=True)
class Loss:
    """Committed states that a run would take away or compute again.

    sentences: of the shards concerned, out of `total`; at `layers` layers each. results: of later stages, made from
    them. reasons: what changed.
    """

    path: str
    sentences: int
    layers: int
    results: tuple[str, ...]
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        results = f", and {', '.join(self.results)}" if self.results else ""
        why = "; ".join(self.reasons)
        return f"{self.path}: states of {self.sentences:,} sentences × {self.layers} layers{results} ({why})"


@dataclass(frozen=True)
class Standing:
    """A group of the store, or the place where it will be, beside what the job says of it.

    shape: what the group must have. claimed: fingerprint of each stored shard whose file is there, whole or not.
    recipes: of the group, as far as they agree with the job. allowed: for each shard that the job wants, the
    fingerprints with which it may stay; begun: those with which its first rows may, each with the row after them.
    known: whether the group says what its states were made from.
    """

    pair: Input
    shape: Shape
    stored: Shape | None = None
    claimed: tuple[str, ...] = ()
    recipes: tuple[Recipe, ...] = ()
    allowed: tuple[frozenset[str], ...] = ()
    loss: Loss | None = None
    known: bool = True
    begun: tuple[dict[str, int], ...] = ()

    @property
    def path(self) -> str:
        """Path of the group in the store."""
        return self.pair.path

    def stays(self, shard: int, fingerprint: str) -> bool:
        """Whether a shard that is committed with a fingerprint is as the job wants it."""
        return bool(fingerprint) and shard < len(self.allowed) and fingerprint in self.allowed[shard]

    def rows_before(self, shard: int, fingerprint: str) -> int:
        """The row after those that a shard holds which is committed with a fingerprint, if more came later; else 0."""
        return self.begun[shard].get(fingerprint, 0) if shard < len(self.begun) else 0

    @property
    def takes_nothing(self) -> bool:
        """Whether every committed shard stays."""
        return all(self.stays(i, c) for i, c in enumerate(self.claimed) if c)

    @property
    def num_pending(self) -> int:
        """Sentences, or rows, whose shards do not stay; their blocks hold some more."""
        return sum(stop - start for start, stop in self.pending_ranges())

    def pending_ranges(self) -> list[tuple[int, int]]:
        """First sentence, or row, that each shard lacks which does not stay as it is, and the one after its last."""
        found, claimed = [], (*self.claimed, *[""] * self.shape.num_shards)
        for shard in self._pending_shards():
            first, stop = self.shape.bounds(shard)
            found.append((max(first, self.rows_before(shard, claimed[shard])), stop))
        return found

    def pending_sentences(self) -> list[tuple[int, int]]:
        """Sentences of those shards; of their blocks, where a sentence has any number of rows."""
        rows = self.shape.rows
        if rows is None:
            return self.pending_ranges()
        blocks = {self.shape.block_of_shard(i) for i in self._pending_shards()}
        return [(b * rows.block, min((b + 1) * rows.block, rows.num_sentences)) for b in sorted(blocks)]

    def _pending_shards(self) -> list[int]:
        claimed = (*self.claimed, *[""] * self.shape.num_shards)
        return [i for i in range(self.shape.num_shards) if not self.stays(i, claimed[i])]

    @property
    def num_kept(self) -> int:
        """Shards that stay, damage aside."""
        return sum(self.stays(i, fingerprint) for i, fingerprint in enumerate(self.claimed))

    @property
    def is_new(self) -> bool:
        """Whether nothing that is committed stays, not even the first rows of a shard."""
        return not self.num_kept and not any(self.rows_before(i, c) for i, c in enumerate(self.claimed))


@dataclass(frozen=True)
class Asked:
    """What a job asks of a model's groups.

    request: as `request_of` gives it. earlier_versions: of the last run. block_sentences: of a new block.
    """

    inputs: Inputs
    request: dict[str, Any]
    hardware: Hardware
    earlier_versions: dict[str, str]
    block_sentences: int

    def dtype(self, pair: Input) -> str:
        """The dtype that the model would compute in here."""
        named = pair.model.dtype or self.inputs.loaded.job.extract.dtype
        return named if named != "auto" else ("bfloat16" if self.hardware.gpus else "float32")


def shape_for(inputs: Inputs, pair: Input, stored: Shape | None = None, block_sentences: int = 0) -> Shape:
    """The shape of a dataset's arrays: as stored, where only the number of sentences may differ.

    block_sentences: for groups whose sentences have any number of rows; they are laid out by blocks.
    """
    name, extract = pair.model.group, inputs.loaded.job.extract
    facts, every = inputs.sources[name].facts, inputs.layers[name]
    shard = None if extract.shard_sentences == "auto" else extract.shard_sentences

    def shape_with(wanted: Sequence[int], shard: int | None) -> Shape:
        names = [layers.layer_name(k, facts.num_layers) for k in wanted]
        return choose_shape(len(pair.tokens), wanted, names, facts.hidden_size, extract.store_dtype, shard)

    shape, wanted = shape_with(every, shard), inputs.layers_of(pair)
    if wanted != every:
        # Shards of as many sentences as all layers have: blocks are then those of the other groups of the dataset.
        shape = shape_with(wanted, shape.shard)
    is_ragged = pair.placed is not None and pair.placed.position.is_ragged
    if stored is not None and (stored.rows is not None) == is_ragged:
        shape = _as_stored(shape, stored, shard)
    if pair.placed is not None and is_ragged:
        return _with_rows(shape, pair.placed, stored, max(block_sentences, 1))
    return shape


def _as_stored(shape: Shape, stored: Shape, shard: int | None) -> Shape:
    """A new shape with the shards of the stored one, where the dataset is as it was or grew, and those are not tiny.

    shard: sentences of a shard, as the job says.
    """
    before = stored.num_sentences if stored.rows is None else stored.rows.num_sentences
    sized = replace(stored, num_sentences=shape.num_sentences, shard=shape.shard, chunk=shape.chunk)
    if replace(sized, rows=None, borders=()) != shape or shard not in (None, stored.shard):
        return shape
    few = -(-shape.num_sentences // stored.shard) <= FEW_SHARDS or TINY_SHARD * stored.shard >= shape.shard
    if before == shape.num_sentences or (before < shape.num_sentences and few):
        borders = stored.borders if before == shape.num_sentences else (*stored.borders, before)
        return replace(shape, shard=stored.shard, chunk=stored.chunk, borders=borders)
    return shape


def _with_rows(shape: Shape, placed: Placed, stored: Shape | None, block_sentences: int) -> Shape:
    """The shape of a group whose sentences have any number of rows: in blocks as stored, or of so many sentences."""
    block = block_of(shape, block_sentences)
    if stored is not None and stored.rows is not None and stored.shard == shape.shard:
        block = stored.rows.block
    count, num_rows = shape.num_sentences, list[int]()
    for start in range(0, count, block):
        num_rows.append(placed.num_rows(start, min(start + block, count)))
    return replace(shape, num_sentences=sum(num_rows), rows=Rows(count, block, tuple(num_rows)))


def block_of(shape: Shape, block_sentences: int) -> int:
    """Sentences of a block, rounded down to whole shards."""
    return max(shape.shard, block_sentences // shape.shard * shape.shard)


def blocks_of(pair: Input, recipe: Recipe, shape: Shape) -> list[Block]:
    """The blocks of the first sentences, as many as the shape holds, with their fingerprints under a recipe."""
    if shape.rows is not None:
        num_rows = pair.placed.num_rows if pair.placed is not None else lambda start, stop: 0
        return make_row_blocks(pair.rows_digest, recipe.common(shape), shape, num_rows)
    block = block_of(shape, recipe.numerics["block_sentences"])
    common = recipe.common(shape)
    return make_blocks(pair.rows_digest, common, shape.num_sentences, shape.shard, block, shape.borders)


def plan(pair: Input, recipe: Recipe, shape: Shape) -> list[str]:
    """The fingerprint that each shard must have under a recipe, for the first sentences that the shape holds."""
    return [fingerprint for b in blocks_of(pair, recipe, shape) for fingerprint in b.fingerprints]


def stand(asked: Asked, pair: Input, store: Store, path: str | None = None) -> Standing:
    """How the group of a model and dataset stands; only reads.

    path: of another group than the pair's own.
    """
    path = path or pair.path
    attributes, model = read_attributes(store, path), read_attributes(store, path.split("/")[0])
    stored = _stored_shape(store, path, attributes, shape_for(asked.inputs, pair, None, asked.block_sentences))
    shape = shape_for(asked.inputs, pair, stored, asked.block_sentences)
    claimed = tuple(claimed_shards(store, path, (stored or shape).num_shards))
    if not any(claimed):
        return Standing(pair, shape)
    policy = pair.recorded_policy
    recipes = recorded(attributes)
    if not recipes:
        found = recover(asked.request, policy, model, asked.earlier_versions)
        recipes = [] if found is None else [found]
    known = bool(recipes) or "numerics" in model
    fitting = [r for r in recipes if r.agrees_with(asked.request, policy)]
    stored = stored or shape
    allowed, begun = _allowed(pair, fitting, stored, shape)
    standing = Standing(pair, shape, stored, claimed, tuple(fitting), allowed, None, known, begun)
    mixed = _mixed_dtypes(asked, standing)
    if mixed:
        same = tuple(r for r in fitting if r.request == asked.request)
        allowed, begun = _allowed(pair, same, stored, shape)
        standing = replace(standing, recipes=same, allowed=allowed, begun=begun)
        lost, reasons = [i for i, c in enumerate(claimed) if c and not standing.stays(i, c)], [mixed]
    else:
        lost = _lost(standing)
        reasons = _reasons(asked, standing, recipes, store, path) if lost else []
    if not lost:
        return standing
    sentences = sum(stop - start for start, stop in map(stored.bounds, lost) if stop > start)
    results = tuple(name for name in attributes.get("results", {}) if is_headline(name))
    return replace(standing, loss=Loss(path, sentences, len(stored.layers), results, tuple(reasons)))


def _allowed(
    pair: Input, recipes: Sequence[Recipe], stored: Shape, shape: Shape
) -> tuple[tuple[frozenset[str], ...], tuple[dict[str, int], ...]]:
    """For each shard, its fingerprints under these recipes, and of its first rows; none where it is cut otherwise."""
    if not stored.may_grow_to(shape) or not recipes:
        return (), ()
    every = [blocks_of(pair, r, shape) for r in recipes]
    allowed = zip(*([f for b in blocks for f in b.fingerprints] for blocks in every), strict=True)
    begun: list[dict[str, int]] = [{} for _ in range(shape.num_shards)]
    for block in (block for blocks in every for block in blocks):
        for shard, found in enumerate(block.begun, block.first_shard):
            begun[shard] |= {each.fingerprint: each.stop for each in found}
    return tuple(map(frozenset, allowed)), tuple(begun)


def _lost(standing: Standing) -> list[int]:
    """Numbers of the committed shards that would be taken away or written again, unless the dataset only grew."""
    stored, shape, claimed = standing.stored, standing.shape, standing.claimed
    assert stored is not None
    lost = [i for i, c in enumerate(claimed) if c and not standing.stays(i, c) and not standing.rows_before(i, c)]
    if not standing.known and replace(stored, num_sentences=shape.num_sentences, rows=shape.rows) == shape:
        return []  # its metadata are damaged: whether its states fit is seen once the model is loaded
    if lost and shape.num_sentences > stored.num_sentences and standing.recipes:
        before = [plan(standing.pair, r, stored) for r in standing.recipes]
        if all(any(claimed[i] == b[i] for b in before) for i in lost):
            return []
    return lost


def _mixed_dtypes(asked: Asked, standing: Standing) -> str:
    """Why the rest of a group cannot be computed here beside what it holds; empty where it can, or nothing is left."""
    dtype = asked.dtype(standing.pair)
    others = {str(r.numerics.get("dtype", dtype)) for r in standing.recipes if r.request != asked.request} - {dtype}
    complete = standing.num_kept == standing.shape.num_shards
    if not others or complete or _lost(standing):
        return ""
    before = " and ".join(sorted(others))
    return f"they were computed in {before}, and on this device the rest would be computed in {dtype}"


def _reasons(asked: Asked, standing: Standing, recipes: list[Recipe], store: Store, path: str) -> list[str]:
    """What changed, in the job's words."""
    stored, shape = standing.stored, standing.shape
    assert stored is not None
    said: list[str] = []
    if recipes:
        # Where the settings agree, a tokenizer that is another may be why the tokens are.
        said = recipes[-1].differences(asked.request, standing.pair.recorded_policy)
    elif not recipes:
        for name, before, now in zip(asdict(stored), asdict(stored).values(), asdict(shape).values(), strict=True):
            if name in ("layers", "hidden_size", "store_dtype") and before != now:
                said.append(f"{name.replace('_', ' ')} is {now}, it was {before}")
    rows = _changed_rows(standing, store, path)
    said += [rows] if rows else []
    return said or ["the model, a setting, the tokenizer or the machine changed; the store does not record which"]


def _changed_rows(standing: Standing, store: Store, path: str) -> str:
    """How the sentences differ from those of the store; empty where they do not, or the store cannot tell."""
    try:
        before = read_array(zarr.open_group(store, path=path, mode="r", use_consolidated=False), "row_id").tolist()
    except (DamageError, ValueError, KeyError, TypeError, OSError):
        return ""
    rows = standing.pair.rows
    now = row_ids(rows.texts(0, rows.num_rows))
    if before == now or (len(now) > len(before) and now[: len(before)] == before):
        return "" if standing.recipes == () else "the tokens of some sentences differ"
    if Counter(before) == Counter(now):
        return "the sentences stand in another order"
    if len(before) == len(now):
        return f"{sum(b != n for b, n in zip(before, now, strict=True)):,} of {len(now):,} sentences are others"
    gone, added = (Counter(before) - Counter(now)).total(), (Counter(now) - Counter(before)).total()
    said = [f"{gone:,} of {len(before):,} sentences are gone"] if gone else []
    return " and ".join([*said, *([f"{added:,} are new, not all of them at the end"] if added else [])])


def _stored_shape(store: Store, path: str, attributes: dict[str, Any], wanted: Shape) -> Shape | None:
    """The shape that a group records, or what its states' own metadata say where that is damaged."""
    try:
        return shape_of(attributes)
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    try:
        array = json.loads(read_file(store, f"{path}/hidden_states/zarr.json") or b"")
        (sentences, count, hidden), shard = array["shape"], array["chunk_grid"]["configuration"]["chunk_shape"][0]
        chunk, dtype = array["codecs"][0]["configuration"]["chunk_shape"][0], array["data_type"]
    except (ValueError, KeyError, TypeError, IndexError):
        return None
    # Which layers they are is not said there: as many as the job's are taken for the job's, and fingerprints decide.
    same = count == len(wanted.layers)
    numbers, names = (wanted.layers, wanted.layer_names) if same else (tuple(range(count)), ("",) * count)
    borders = _recorded_borders(store, path, -(-sentences // shard))
    return Shape(sentences, numbers, names, hidden, dtype, shard, chunk, borders=borders)


def _recorded_borders(store: Store, path: str, num_shards: int) -> tuple[int, ...]:
    """Where stretches begin, by the records of a group's shards; the first sentence of a block does no harm."""
    starts = set[int]()
    for shard in range(num_shards):
        with suppress(DamageError):
            record = read_record(store, path, shard)
            starts |= {p.start for p in (() if record is None else record.block) if path.endswith(p.group)}
    return tuple(sorted(starts - {0}))
