"""What the columns of a file seem to be: the sentence, the label, and what else a job could name.

Reads the beginning of a file, all columns of it, and decides by names and values. Nothing here is certain: whoever uses
it says what was decided and why.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from drillcore.errors import TextError
from drillcore.system.nearly import fold, shown
from drillcore.texts.columns import kind_of
from drillcore.texts.conversations import conversation
from drillcore.texts.formats import Format, format_of, read_rows
from drillcore.texts.label_kind import NUMBERS
from drillcore.texts.problems import Problems
from drillcore.texts.readers.lines import Row, TextFile, UnreadableError
from drillcore.texts.readers.separators import SEPARATORS, remedy_for

# Values that are looked at, in all columns together.
MOST_CELLS = 1_000_000
# Distinct values of a column that are counted, and characters of one that is.
MOST_VALUES, LONGEST_VALUE = 2000, 200
# Distinct labels that a column which is not named like one may have.
MOST_LABELS = 50
# Names that say what a column is, folded, the surest first.
TEXTS = (
    *("text", "sentence", "sentences", "texts", "prompt", "content", "document", "review", "comment", "body"),
    *("message", "tweet", "question", "utterance", "input", "instruction", "description"),
)
CONVERSATIONS = ("messages", "conversation", "conversations", "chat", "dialog", "dialogue")
LABELS = (
    *("label", "labels", "class", "category", "target", "sentiment", "label_text", "label_name", "gold", "emotion"),
    *("intent", "polarity", "stance"),
)
IDS = ("id", "uid", "uuid", "guid", "key")
GROUPS = ("group", "topic", "author", "user", "speaker", "session", "subject", "source", "template", "pair", "family")
# Few distinct values, and seldom what is to be told apart.
NO_LABELS = ("split", "fold", "set", "index", "year", "month", "day", "date", "version", "batch", *GROUPS, *IDS)
KNOWN = frozenset((*TEXTS, *CONVERSATIONS, *LABELS, *IDS, *NO_LABELS, "expected_next"))
# A first line with a cell of so many words that ends like a sentence is a row and no header.
SENTENCE_WORDS = 3
# Lines that are looked at for what separates their fields.
FIRST_LINES = 20


@dataclass(frozen=True)
class Guess:
    """What the columns of a file seem to be.

    text: the column of the sentences, or of conversations where `is_conversation`. label, identifier, expected_next:
    None where no column seems to be one. is_number: the labels are numbers, some with fractions. other_labels: that
    could be meant where the label is a guess. groups, others: columns that a job could name as `group` and keep.
    why_text, why_label: what decided.
    """

    path: Path
    kind: Format
    names: tuple[str, ...]
    text: str
    why_text: str
    is_conversation: bool = False
    label: str | None = None
    why_label: str = ""
    is_number: bool = False
    other_labels: tuple[str, ...] = ()
    identifier: str | None = None
    expected_next: str | None = None
    groups: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def guess_columns(path: Path) -> Guess:
    """Look at the columns of a file.

    Raises:
        TextError: the file cannot be read, has no header, or no column of it could hold sentences.
    """
    kind, problems = format_of(path), Problems()
    if kind.kind in ("csv", "tsv"):
        kind = replace(kind, delimiter=_delimiter(path, kind))
    names, rows = _sample(path, kind, partial(problems.add, str(path)))
    columns: dict[str, _Values] = {name: _Values(name, kind.reader.is_typed) for name in names}
    num_rows = 0
    for row in rows:
        num_rows += 1
        for name, value in row.items():
            columns.setdefault(name, _Values(name, kind.reader.is_typed)).see(value)
    problems.raise_if_any()
    if not num_rows:
        raise TextError(f"{path}: holds no sentence", hint="A file of texts has a row for each of them.")
    if kind.kind in ("csv", "tsv"):
        _refuse_rows_as_header(path, columns)
    return _choose(path, kind, columns, num_rows)


def _sample(
    path: Path, kind: Format, on_problem: Callable[[int | None, str], None]
) -> tuple[list[str], Iterator[dict[str, Any]]]:
    """The names of the columns, as far as the first row tells them, and the rows at the beginning of the file."""
    # A reader of columns gives those that it is asked for, and the names of all where it has no such one.
    asked = ["\0"] if kind.reader.has_columns else []
    first = next((row for _, row in read_rows(path, kind, asked, lambda line, what: None) if row is not None), {})
    rows = read_rows(path, kind, list(first), on_problem)
    return list(first), _limited(rows)


def _limited(rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
    num_cells = 0
    for _, row in rows:
        if row is not None:
            yield row
            num_cells += max(1, len(row))
        if num_cells >= MOST_CELLS:
            return


@dataclass
class _Values:
    """What was seen of a column. `number` counts the values that are there, the other numbers those of each kind."""

    name: str
    is_typed: bool
    number: int = 0
    strings: int = 0
    numerals: int = 0
    fractions: int = 0
    conversations: int = 0
    others: int = 0
    characters: int = 0
    spaced: int = 0
    repeats: int = 0
    counts: Counter[Any] = field(default_factory=Counter)
    is_counted: bool = True

    def see(self, value: Any) -> None:
        """One more value."""
        if value is None or (isinstance(value, str) and not value.strip()):
            return
        if isinstance(value, float) and math.isnan(value):
            return
        self.number += 1
        self.repeats += value == self.name
        if isinstance(value, str) and not (value.lstrip()[:1] == "[" and _is_conversation(value)):
            kind = kind_of(value, self.is_typed, ())
            self.strings += 1
            self.numerals += kind in NUMBERS
            self.fractions += kind == "fraction" and not float(value).is_integer()
            self.characters += len(value)
            self.spaced += " " in value
        elif isinstance(value, bool | int | float):
            self.fractions += isinstance(value, float) and not value.is_integer()
        elif _is_conversation(value):
            self.conversations += 1
        else:
            self.others += 1
        self._count(value)

    def _count(self, value: Any) -> None:
        is_short = isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= LONGEST_VALUE)
        self.is_counted = self.is_counted and is_short and len(self.counts) <= MOST_VALUES
        if self.is_counted:
            self.counts[value] += 1

    @property
    def folded(self) -> str:
        """The name without case and blanks around it."""
        return fold(self.name).strip("\"'").replace(" ", "_").replace("-", "_")

    @property
    def is_nameable(self) -> bool:
        """Whether a job can name the column: YAML and the job's own words for a field set limits."""
        return bool(self.name.strip()) and "\0" not in self.name and self.name.isprintable() and self.name != "auto"

    @property
    def is_text(self) -> bool:
        """Whether all values are strings."""
        return self.is_nameable and 0 < self.number == self.strings

    @property
    def is_category(self) -> bool:
        """Whether the values could be labels or groups: few kinds of strings or whole numbers."""
        plain = not (self.others or self.conversations or self.fractions)
        return self.is_nameable and self.number > 0 and plain and self.is_counted and not self._is_spread

    @property
    def is_number(self) -> bool:
        """Whether all values are numbers, some with fractions: labels of a regression, not classes."""
        plain = not (self.others or self.conversations) and self.strings == self.numerals
        return self.is_nameable and plain and self.fractions > 0

    @property
    def _is_spread(self) -> bool:
        return len(self.counts) > MOST_LABELS and 2 * len(self.counts) > self.number

    @property
    def mean_characters(self) -> float:
        """Of a string."""
        return self.characters / max(1, self.strings)


def _is_conversation(value: Any) -> bool:
    try:
        conversation(value)
    except ValueError:
        return False
    return True


def _choose(path: Path, kind: Format, columns: dict[str, _Values], num_rows: int) -> Guess:
    text, why_text, is_conversation = _choose_text(path, columns)
    left = [column for column in columns.values() if column.name != text]
    label, why_label, other_labels = _choose_label(left, num_rows)
    is_number = label is not None and columns[label].is_number
    left = [column for column in left if column.name != label and column.is_nameable and column.number]
    is_full = {column.name: column.number == num_rows for column in left}
    plain = [c for c in left if not (c.others or c.conversations)]
    identifier = next((c.name for c in plain if c.folded in IDS and is_full[c.name] and not c.fractions), None)
    expected = next((c.name for c in plain if c.folded == "expected_next" and c.is_text and is_full[c.name]), None)
    groups = [
        c
        for c in plain
        if is_full[c.name] and c.is_category and 1 < len(c.counts) <= num_rows // 2 and c.name != identifier
    ]
    groups.sort(key=lambda c: (c.folded not in GROUPS, not c.folded.endswith("_id")))
    named = [c.name for c in groups if c.folded in GROUPS or c.folded.endswith("_id")]
    taken = {identifier, expected}
    return Guess(
        path,
        kind,
        tuple(columns),
        text,
        why_text,
        is_conversation,
        label,
        why_label,
        is_number,
        other_labels,
        identifier,
        expected if not is_conversation else None,
        tuple(named[:3]),
        tuple(c.name for c in plain if c.name not in taken),
    )


def _choose_text(path: Path, columns: dict[str, _Values]) -> tuple[str, str, bool]:
    """The column of the sentences, why, and whether it holds conversations."""
    chats = [c for c in columns.values() if c.is_nameable and 0 < c.number == c.conversations]
    if chats:
        chats.sort(key=lambda c: _rank(c.folded, CONVERSATIONS))
        return chats[0].name, "lists of messages, each with a role and content", True
    texts = [c for c in columns.values() if c.is_text]
    named = sorted((c for c in texts if c.folded in TEXTS), key=lambda c: _rank(c.folded, TEXTS))
    if named:
        return named[0].name, "by its name", False
    words = [c for c in texts if c.numerals < c.number]
    if words:
        aside = (*LABELS, *IDS)
        longest = max(words, key=lambda c: (c.folded not in aside, 2 * c.spaced > c.number, c.mean_characters))
        mean = f"{longest.mean_characters:.0f} characters on average"
        why = "the only column" if len(columns) == 1 else f"a guess: it has the longest texts, {mean}"
        return longest.name, why, False
    present = ", ".join(shown(name) for name in islice(columns, 10)) + (", ..." if len(columns) > 10 else "")
    raise TextError(
        f"{path}: no column holds text in all its values; there is {present or 'no column'}",
        hint="A sentence is a string, a conversation a list of messages with `role` and `content`.",
    )


def _choose_label(columns: Sequence[_Values], num_rows: int) -> tuple[str | None, str, tuple[str, ...]]:
    """The column of the labels, why, and what else it could be; None where no column seems to be one."""
    candidates = [c for c in columns if c.is_category]
    numbers = [c for c in columns if c.is_number and c.folded in LABELS]
    named = sorted((*numbers, *(c for c in candidates if c.folded in LABELS)), key=lambda c: _rank(c.folded, LABELS))
    if named:
        return named[0].name, "by its name", ()
    repeated = [
        c
        for c in candidates
        if c.folded not in NO_LABELS
        and not c.folded.endswith("_id")
        and 2 <= len(c.counts) <= MOST_LABELS
        and min(c.counts.values()) >= 2
        and 2 * c.number > num_rows
    ]
    repeated.sort(key=lambda c: c.strings < c.number or c.numerals == c.number)
    if repeated:
        why = "a guess: it has few different values, each in several rows"
        return repeated[0].name, why, tuple(column.name for column in repeated[1:])
    return None, "", ()


def _rank(name: str, names: Sequence[str]) -> int:
    return names.index(name) if name in names else len(names)


def _delimiter(path: Path, kind: Format) -> str:
    """What separates the fields of a CSV file where that is no comma; empty otherwise.

    Raises TextError where the fields of a TSV file are separated by something else than tabs.
    """
    own = {"csv": ",", "tsv": "\t"}[kind.kind]
    try:
        lines = [line for _, line in islice(TextFile(path, kind.compression).lines(lambda *_: None), FIRST_LINES)]
    except (UnreadableError, OSError, EOFError, ValueError):
        return ""  # the reader says what is wrong
    if not lines or own in lines[0] or lines[0].lower().startswith("sep="):
        return ""
    counts = {sign: [line.count(sign) for line in lines] for sign in SEPARATORS if sign != own}
    for sign, found in counts.items():
        if found[0] and sum(count == found[0] for count in found) > len(found) / 2 and len(found) > 1:
            if kind.kind == "csv":
                return sign
            what = f"{path}: its fields are separated by {SEPARATORS[sign]}"
            raise TextError(what, hint=f"Rename it: {remedy_for(sign, kind.kind)}.")
    return ""


def _refuse_rows_as_header(path: Path, columns: dict[str, _Values]) -> None:
    """Raise TextError where the names of the columns look like a row."""
    if all(name.strip().isdecimal() for name in columns) or any(c.folded in KNOWN for c in columns.values()):
        return  # numbered columns, as programs write them, or names that are known
    for name, column in columns.items():
        words = name.split()
        is_sentence = len(words) >= SENTENCE_WORDS and name.rstrip()[-1] in ".!…。！"
        # A number may well be the name of a column of numbers.
        is_word = column.is_category and len(column.counts) <= MOST_LABELS and not name.strip().isdecimal()
        is_value = is_word and column.repeats > 1
        # Where every name is a value of its column, files with headers were put together.
        if is_sentence or (is_value and not all(c.repeats for c in columns.values())):
            raise TextError(
                f"{path}: its first line looks like a row, not like the names of columns: {shown(name)}",
                hint="Put a line of names first, such as text,label, or save plain sentences as .txt.",
            )
