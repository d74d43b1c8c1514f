"""Reads every row and configuration of a job once, before anything is written, and reports all mistakes at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from drillcore.backends import check_backend, check_spread, layers
from drillcore.backends.device import check_devices
from drillcore.backends.source import ModelSource, locate
from drillcore.errors import JobError, TextError
from drillcore.job.fields import LoadedJob
from drillcore.job.groups import Group, branch_of, by_template, group_of, positions_of
from drillcore.job.inputs import Dataset
from drillcore.job.model import Model
from drillcore.job.positions import LAST
from drillcore.runtime.continuing import Following, around_of, continuations_of
from drillcore.runtime.models import check_all_weights, find_models
from drillcore.runtime.positions import Placed, place
from drillcore.runtime.rows import read_tables
from drillcore.runtime.settings import check_pictures
from drillcore.runtime.splits import check_tested
from drillcore.runtime.work.blocks import rows_digest
from drillcore.system.progress import ProgressListener, counted
from drillcore.texts.problems import Problems
from drillcore.texts.rows import RowTable, row_ids
from drillcore.tokens.continuations import Continuations
from drillcore.tokens.places import Places
from drillcore.tokens.sequences import Sequences
from drillcore.tokens.surroundings import notes_on
from drillcore.tokens.tokenizer import Tokenizer, TokenPolicy, tokenize

# Bytes of every token's states, before compression, above which a run asks first.
MOST_UNASKED = 10 * 10**9


@dataclass(frozen=True)
class Input:
    """One model and dataset, checked.

    dataset: at one position. tokens: truncated to the model's context where the job says so; num_truncated: sentences
    that lost tokens. expected, candidates: tokens of the expected next text and of the candidates after each sentence,
    None where the dataset names none. placed: where its rows are taken; None for the last tokens.
    """

    model: Model
    dataset: Group
    rows: RowTable
    tokens: Sequences
    policy: TokenPolicy
    num_truncated: int
    expected: Continuations | None
    candidates: Continuations | None
    placed: Placed | None = None
    _digests: dict[tuple[int, int], str] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def path(self) -> str:
        """Path of its group in the store, which names it in messages too."""
        return f"{self.model.group}/{self.dataset.name}"

    @property
    def recorded_policy(self) -> dict[str, Any]:
        """How its texts become tokens and which of them count, as recipes record it; JSON-ready."""
        position = {} if self.placed is None else {"position": self.placed.position.record()}
        return {**asdict(self.policy), **position}

    @property
    def num_rows(self) -> int:
        """Rows of its group."""
        return len(self.tokens) if self.placed is None else self.placed.num_rows(0, len(self.tokens))

    def places(self, start: int, stop: int) -> Places | None:
        """Which tokens of sentences start .. stop - 1 its rows are of; None for the last ones."""
        return None if self.placed is None else self.placed.places(start, stop)

    def rows_digest(self, start: int, stop: int) -> str:
        """Digest of sentences start .. stop - 1, their tokens and places; each range is read once in a run."""
        if (start, stop) not in self._digests:
            ids = row_ids(self.rows.texts(start, stop))
            found = rows_digest(self.tokens.slice(start, stop), ids, self.places(start, stop))
            self._digests[start, stop] = found
        return self._digests[start, stop]


@dataclass(frozen=True)
class Inputs:
    """All that a job works on.

    sources, tokenizers, layers: by the model's group. pairs: every model with every dataset, models outermost.
    """

    loaded: LoadedJob
    sources: dict[str, ModelSource]
    tokenizers: dict[str, Tokenizer]
    layers: dict[str, tuple[int, ...]]
    pairs: tuple[Input, ...]

    def of_model(self, group: str) -> list[Input]:
        """The pairs of one model."""
        return [p for p in self.pairs if p.model.group == group]

    def datasets_of(self, group: str) -> list[list[Input]]:
        """The pairs of one model, those of one dataset together."""
        found: dict[str, list[Input]] = {}
        for pair in self.of_model(group):
            found.setdefault(pair.dataset.of, []).append(pair)
        return list(found.values())

    def sentences_of(self, group: str) -> list[list[Input]]:
        """One pair for each set of sentences that a model computes: of each dataset, itself and its branches."""
        found = []
        for together in self.datasets_of(group):
            distinct: dict[int, Input] = {}
            for pair in together:
                distinct.setdefault(id(pair.tokens), pair)
            found.append(list(distinct.values()))
        return found

    def layers_of(self, pair: Input) -> tuple[int, ...]:
        """Numbers of the layers that a pair's group stores."""
        return pair.dataset.position.layers or self.layers[pair.model.group]


def check_job(
    loaded: LoadedJob,
    listener: ProgressListener,
    *,
    loads_models: bool = True,
    find: Callable[[Model, Path], ModelSource] = locate,
) -> Inputs:
    """Check everything a job names.

    loads_models: whether models will run, so that their weights are checked too. find: finds a model. Raises TextError
    or ModelError (or JobError for a layer out of range, MissingExtraError for a package that is not installed) that
    names every problem, up to a limit.
    """
    tables = read_tables(loaded, listener)
    for model in loaded.job.models:
        if model.trust_remote_code:
            listener.warn(f"{model.group}: runs code of its own repository, as the job says (trust_remote_code)")
    sources = find_models(loaded, find)
    for source in sources.values():
        check_backend(loaded.job.extract.backend, source, loaded.job.extracting)
    if loads_models:
        if loaded.job.run.executor == "local":
            # The driver of a cluster need not have the devices of its workers.
            for model in loaded.job.models:
                check_devices(loaded.job.extract, model)
        check_all_weights(loaded, sources.values())
        if loaded.job.run.executor == "local":
            for source in sources.values():
                check_spread(source, loaded.job.extract)
    tokenizers = {g: s.tokenizer(loaded.job.extract.special_tokens) for g, s in sources.items()}
    wanted = {g: layers.resolve_layers(loaded.job.extract.layers, s.facts.num_layers) for g, s in sources.items()}
    check_pictures(loaded, tables.values(), wanted)
    problems = Problems()
    bases, keys, known = _encoded(loaded, tables, sources, tokenizers, problems)
    problems.raise_if_any()
    pairs = list[Input]()
    for base in bases:
        name = base.model.group
        pairs += _at_positions(loaded, base, tokenizers[name], wanted[name], problems)
    problems.raise_if_any()
    check_tested(
        pairs,
        lambda pair: tokenizers[pair.model.group].key(around_of(pair.dataset)),
        lambda pair: pair.dataset.position.layers or wanted[pair.model.group],
    )
    for pair in pairs:
        _refuse_size(loaded, pair, wanted[pair.model.group], sources[pair.model.group])
    following = list(_following(pairs, tokenizers))
    for file, each in following:
        each.refuse(loaded.called(file), problems)
    problems.raise_if_any()
    for line in _notes(bases, tokenizers, keys, known):
        listener.warn(line)
    for _, each in following:
        for note in each.notes():
            listener.warn(note)
    for pair in pairs:
        for note in pair.placed.notes() if pair.placed is not None else ():
            listener.warn(f"{pair.path}: {note}")
    return Inputs(loaded, sources, tokenizers, wanted, tuple(pairs))


def _encoded(
    loaded: LoadedJob,
    tables: Mapping[str, RowTable],
    sources: Mapping[str, ModelSource],
    tokenizers: Mapping[str, Tokenizer],
    problems: Problems,
) -> tuple[list[Input], list[tuple[str, str]], dict[tuple[str, str], Sequences]]:
    """Every model with every dataset at the last tokens; the keys of their tokens, and those tokens, not truncated."""
    bases, keys = list[Input](), list[tuple[str, str]]()
    known: dict[tuple[str, str], Sequences] = {}
    for model in loaded.job.models:
        tokenizer = tokenizers[model.group]
        for dataset in (each for named in loaded.job.datasets for each in by_template(named)):
            rows = tables[dataset.name]
            for group in (group_of(dataset, LAST), *(branch_of(dataset, name) for name in dataset.branches)):
                around = around_of(group)
                key = (rows.digest, tokenizer.key(around))
                keys.append(key)
                if key not in known:
                    try:
                        known[key] = tokenize(rows, tokenizer, around)
                    except TextError as error:
                        raise TextError(f"{loaded.called(dataset)}: {error}", hint=error.hint) from None
                tokens, truncated = _fit(loaded, sources[model.group], group, known[key], problems)
                follow = continuations_of(rows, tokenizer, group, known[key], tokens)
                policy = tokenizer.policy(around.template)
                bases.append(Input(model, group, rows, tokens, policy, truncated, *follow))
                _refuse_unknown_ids(loaded, bases[-1], sources[model.group], tokenizer, problems)
    return bases, keys, known


def _refuse_size(loaded: LoadedJob, pair: Input, layers: tuple[int, ...], source: ModelSource) -> None:
    """Raise JobError where every token's states would take more room than the job allows."""
    position = pair.dataset.position
    if pair.placed is None or position.all is None:
        return
    item = {"float32": 4, "float16": 2}[loaded.job.extract.store_dtype]
    rows, num_layers, hidden = pair.num_rows, len(position.layers or layers), source.facts.hidden_size
    size, most = rows * num_layers * hidden * item, position.all.max_bytes or MOST_UNASKED
    if size > most:
        raise JobError(
            f"{pair.path}: the states of {rows:,} tokens at {num_layers} layers take {size / 1e9:,.1f} GB before "
            f"compression, more than {most / 1e9:,.1f} GB",
            hint="Name fewer layers, or allow it with `all: {max_bytes: ...}` in the job or --yes on the command line.",
        )


def _at_positions(
    loaded: LoadedJob, base: Input, tokenizer: Tokenizer, known: tuple[int, ...], problems: Problems
) -> Iterator[Input]:
    """A model and dataset at each position of the job; a branch at its own."""
    file = loaded.called(base.dataset)
    if base.dataset.branch:
        yield base
        return
    for position in positions_of(loaded.job, base.dataset):
        if position.is_last:
            yield base
            continue
        group = group_of(base.dataset, position)
        beyond = sorted(set(position.layers or ()) - set(known))
        if beyond:
            raise JobError(
                f"extract.positions: {position.called}: layer {beyond[0]} is not one of extract.layers",
                hint="A position stores layers that are extracted, or all of them where it names none.",
            )
        try:
            placed = place(group, base.rows, base.tokens, tokenizer, problems)
        except TextError as error:
            raise TextError(f"{file}: {base.model.group}/{group.name}: {error}", hint=error.hint) from None
        yield replace(base, dataset=group, expected=None, candidates=None, placed=placed)


def _notes(
    pairs: Sequence[Input],
    tokenizers: dict[str, Tokenizer],
    keys: Sequence[tuple[str, str]],
    known: dict[tuple[str, str], Sequences],
) -> Iterator[str]:
    """What stands around the sentences, each note once for all models and datasets that share it; and truncation.

    keys: of the pairs' tokens in `known`, where they are not truncated.
    """
    places: dict[str, list[str]] = {}
    found: dict[tuple[str, str], list[str]] = {}
    for pair, key in zip(pairs, keys, strict=True):
        if key not in found:
            found[key] = list(notes_on(tokenizers[pair.model.group], around_of(pair.dataset), known[key]))
        for note in found[key]:
            places.setdefault(note, []).append(pair.path)
    yield from (f"{', '.join(where)}: {note}" for note, where in places.items())
    for pair in pairs:
        if pair.num_truncated:
            limit = int(pair.tokens.lengths_N.max())
            yield f"{pair.path}: {counted(pair.num_truncated, 'sentences')} truncated to {limit} tokens"


def _refuse_unknown_ids(
    loaded: LoadedJob, pair: Input, source: ModelSource, tokenizer: Tokenizer, problems: Problems
) -> None:
    """Name the sentences and continuations with tokens for which the model has no row in its embedding."""
    size, file = source.facts.vocab_size, loaded.called(pair.dataset)
    followers = [(f.ids, f.per_sentence) for f in (pair.expected, pair.candidates) if f is not None]
    for tokens, per_sentence in ((pair.tokens, 1), *followers):
        for row in tokens.beyond(size).tolist():
            token = int(max(tokens[row]))
            what = f"sentence {row // per_sentence}" + (", what follows it" if tokens is not pair.tokens else "")
            problems.add(
                file,
                None,
                f"{what}: token {tokenizer.pieces([token])[0]!r} has the id {token}, but the embedding of "
                f"{source.model.id} has {size} rows (take the model's own tokenizer, or resize the model for it)",
            )
        tokens.release()


def _following(pairs: Sequence[Input], tokenizers: dict[str, Tokenizer]) -> Iterator[tuple[Dataset, Following]]:
    """Everything that datasets expect after their sentences."""
    for pair in pairs:
        for which, found in (("expected", pair.expected), ("candidates", pair.candidates)):
            if found is not None:
                name = pair.model.group
                yield pair.dataset, Following(name, pair.rows, pair.dataset, tokenizers[name], which, found)


def _fit(
    loaded: LoadedJob, source: ModelSource, dataset: Dataset, tokens: Sequences, problems: Problems
) -> tuple[Sequences, int]:
    """Truncate sentences, or list those that are too long or have no token."""
    lengths, limit = tokens.lengths_N, source.facts.max_tokens
    tokens.release()
    file = loaded.called(dataset)
    for i in np.flatnonzero(lengths == 0).tolist():
        problems.add(file, None, f"sentence {i} has no token under {source.model.id}'s tokenizer")
    if limit is None or not len(lengths) or int(lengths.max()) <= limit:
        return tokens, 0
    beyond = np.flatnonzero(lengths > limit)
    if loaded.job.extract.too_long == "truncate":
        return tokens.truncate(limit), len(beyond)
    for i in beyond.tolist():
        problems.add(
            file,
            None,
            f"sentence {i} has {lengths[i]} tokens, the context of {source.model.id} is {limit} "
            "(extract.too_long: truncate would keep the first ones)",
        )
    return tokens, 0
