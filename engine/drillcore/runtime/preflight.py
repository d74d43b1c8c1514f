"""Reads every row and configuration of a job once, before anything is written, and reports all mistakes at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from drillcore.backends import check_backend, check_weights, layers
from drillcore.backends.device import check_devices
from drillcore.backends.source import ModelSource, locate
from drillcore.errors import InputError, TextError
from drillcore.job.fields import LoadedJob
from drillcore.job.inputs import Dataset, Model
from drillcore.runtime.continuing import Following, around_of, continuations_of
from drillcore.runtime.settings import check_pictures
from drillcore.runtime.work.blocks import rows_digest
from drillcore.store.arrays import check_kept_names
from drillcore.store.layout import check_group_name
from drillcore.system.files import cache_dir
from drillcore.system.progress import ProgressListener
from drillcore.texts.notes import note_across, notes_on_job, said
from drillcore.texts.problems import Problems
from drillcore.texts.rows import RowTable, ingest, row_ids
from drillcore.tokens.continuations import Continuations
from drillcore.tokens.sequences import Sequences
from drillcore.tokens.surroundings import notes_on
from drillcore.tokens.tokenizer import Tokenizer, TokenPolicy, tokenize


@dataclass(frozen=True)
class Input:
    """One model and dataset, checked.

    tokens: truncated to the model's context where the job says so; num_truncated: sentences that lost tokens.
    expected, candidates: tokens of the expected next text and of the candidates after each sentence, None where the
    dataset names none.
    """

    model: Model
    dataset: Dataset
    rows: RowTable
    tokens: Sequences
    policy: TokenPolicy
    num_truncated: int
    expected: Continuations | None
    candidates: Continuations | None
    _digests: dict[tuple[int, int], str] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def path(self) -> str:
        """Path of its group in the store, which names it in messages too."""
        return f"{self.model.group}/{self.dataset.name}"

    def rows_digest(self, start: int, stop: int) -> str:
        """Digest of sentences start .. stop - 1 and their tokens; each range is read once in a run."""
        if (start, stop) not in self._digests:
            ids = row_ids(self.rows.texts(start, stop))
            self._digests[start, stop] = rows_digest(self.tokens.slice(start, stop), ids)
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


def check_job(loaded: LoadedJob, listener: ProgressListener, *, loads_models: bool = True) -> Inputs:
    """Check everything a job names.

    loads_models: whether models will run, so that their weights are checked too. Raises TextError or
    ModelError (or JobError for a layer out of range, MissingExtraError for a package that is not installed) that names
    every problem, up to a limit.
    """
    _check_names(loaded)
    tables = _read_rows(loaded, listener)
    for model in loaded.job.models:
        if model.trust_remote_code:
            listener.say(f"{model.group}: runs code of its own repository, as the job says (trust_remote_code)")
    sources, mistakes = _locate_all(loaded)
    if mistakes:
        raise _joined(mistakes)
    for source in sources.values():
        check_backend(loaded.job.extract.backend, source, loaded.job.extract)
    if loads_models:
        if loaded.job.run.executor == "local":
            # The driver of a cluster need not have the devices of its workers.
            for model in loaded.job.models:
                check_devices(loaded.job.extract, model)
        _check_weights(loaded, sources)
    tokenizers = {g: _tokenizer(s, loaded) for g, s in sources.items()}
    wanted = {g: layers.resolve_layers(loaded.job.extract.layers, s.facts.num_layers) for g, s in sources.items()}
    check_pictures(loaded, tables.values(), wanted)
    pairs: list[Input] = []
    problems = Problems()
    known: dict[tuple[str, str], Sequences] = {}
    keys: list[tuple[str, str]] = []
    for model in loaded.job.models:
        tokenizer = tokenizers[model.group]
        for dataset in loaded.job.datasets:
            rows = tables[dataset.name]
            around = around_of(dataset)
            key = (rows.digest, tokenizer.key(around))
            keys.append(key)
            if key not in known:
                try:
                    known[key] = tokenize(rows, tokenizer, around)
                except TextError as error:
                    raise TextError(f"{loaded.path(dataset)}: {error}", hint=error.hint) from None
            tokens, truncated = _fit(loaded, sources[model.group], dataset, known[key], problems)
            follow = continuations_of(rows, tokenizer, dataset, known[key], tokens)
            pairs.append(Input(model, dataset, rows, tokens, tokenizer.policy(dataset.template), truncated, *follow))
    for pair in pairs:
        _refuse_unknown_ids(loaded, pair, sources[pair.model.group], tokenizers[pair.model.group], problems)
    problems.raise_if_any()
    following = list(_following(pairs, tokenizers))
    for file, each in following:
        each.refuse(str(loaded.path(file)), problems)
    problems.raise_if_any()
    for line in _notes(pairs, tokenizers, keys, known):
        listener.say(line)
    for _, each in following:
        for note in each.notes():
            listener.say(note)
    return Inputs(loaded, sources, tokenizers, wanted, tuple(pairs))


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
            yield f"{pair.path}: {pair.num_truncated} sentences truncated to {limit} tokens"


def _refuse_unknown_ids(
    loaded: LoadedJob, pair: Input, source: ModelSource, tokenizer: Tokenizer, problems: Problems
) -> None:
    """Name the sentences and continuations with tokens for which the model has no row in its embedding."""
    size, file = source.facts.vocab_size, str(loaded.path(pair.dataset))
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


def _check_names(loaded: LoadedJob) -> None:
    """Check that every group and column has a name that the store can take; raises StoreError, TextError."""
    for model in loaded.job.models:
        check_group_name(model.group, "model")
    for dataset in loaded.job.datasets:
        check_group_name(dataset.name, "dataset")
        check_kept_names(dataset)
        for column in dataset.keep:
            check_group_name(column, "column")


def _read_rows(loaded: LoadedJob, listener: ProgressListener) -> dict[str, RowTable]:
    problems, tables = Problems(), {}
    for dataset in loaded.job.datasets:
        try:
            table = ingest(loaded.path(dataset), dataset, cache_dir() / "rows", problems)
        except TextError as error:
            problems.add(str(error), None, error.hint)
            continue
        if table is not None:
            tables[dataset.name] = table
    problems.raise_if_any()
    _say_notes(loaded, tables, listener)
    return tables


def _say_notes(loaded: LoadedJob, tables: Mapping[str, RowTable], listener: ProgressListener) -> None:
    """Say what is nearly right in the datasets and in what the job says of them."""
    for dataset in loaded.job.datasets:
        for note in [*said(tables[dataset.name].notes, dataset), *notes_on_job(dataset)]:
            listener.say(f"{dataset.name}: {note}")
    for note in note_across({name: table.distinct("label") for name, table in tables.items()}):
        listener.say(note)


def _locate_all(loaded: LoadedJob) -> tuple[dict[str, ModelSource], list[InputError]]:
    sources, mistakes = {}, []
    for model in loaded.job.models:
        try:
            sources[model.group] = locate(model, loaded.base)
        except InputError as error:
            mistakes.append(error)
    return sources, mistakes


def _check_weights(loaded: LoadedJob, sources: dict[str, ModelSource]) -> None:
    predicts, mistakes = any(d.expected_next or d.candidates for d in loaded.job.datasets), list[InputError]()
    for source in sources.values():
        try:
            check_weights(source, predicts=predicts)
        except InputError as error:
            mistakes.append(error)
    if mistakes:
        raise _joined(mistakes)


def _joined(mistakes: list[InputError]) -> InputError:
    """One error for several, of the kind of the first one."""
    if len(mistakes) == 1:
        return mistakes[0]
    hints = dict.fromkeys(m.hint for m in mistakes if m.hint)
    return type(mistakes[0])("\n".join(map(str, mistakes)), hint=" ".join(hints))


def _tokenizer(source: ModelSource, loaded: LoadedJob) -> Tokenizer:
    return Tokenizer(source.location, loaded.job.extract.special_tokens, **source.arguments())


def _fit(
    loaded: LoadedJob, source: ModelSource, dataset: Dataset, tokens: Sequences, problems: Problems
) -> tuple[Sequences, int]:
    """Truncate sentences, or list those that are too long or have no token."""
    lengths, limit = tokens.lengths_N, source.facts.max_tokens
    tokens.release()
    file = str(loaded.path(dataset))
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
