"""Nearly right input: what is read as it is written, and said before anything is computed."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from drillcore.job.inputs import Dataset
from drillcore.system.nearly import fold, is_unseen, looks_like, near_groups, shown
from drillcore.texts.columns import NUMERAL
from drillcore.texts.readers.lines import quoted

NOTES_VERSION = 4
"""Increase this whenever other notes would be made of the same rows: the cache of rows keeps them."""
# Distinct values of a column that are remembered; a column with more is not one of categories.
MOST_VALUES = 10_000
# What counts as a great many labels, where most of them are different.
MANY_LABELS = 20
# A text so much longer than a word is not looked at for being that word.
MARGIN = 16
SENTENCE_END = "at the end of the sentence"
"""Where a note of this beginning is about: a template that goes on after the sentence makes it void."""

LIKE_NONE = frozenset(("nan", "none", "null", "na", "n/a", "#n/a", "<na>", "nat", "\\n"))
"""What programs write for a missing value, folded."""
# What the bytes of a character in UTF-8 become where each is read as one of cp1252: a first one and one that follows.
TWICE_ENCODED = re.compile("[\u00c2-\u00f4][" + bytes(range(0x80, 0xC0)).decode("cp1252", "ignore") + "]")
FOUND = {
    "none": "{number} of {total} sentences are what programs write for a missing one, {found} ({text})",
    "replaced": "{number} of {total} sentences hold U+FFFD, which stands for bytes that a program could not read, "
    "{found} ({text})",
    "twice encoded": "{number} of {total} sentences look like UTF-8 that was read as another encoding and written "
    "again, {found} ({text})",
    "blank end": SENTENCE_END
    + ": {number} of {total} sentences end in a blank, {found}; their last token may be that blank. Take it out of the "
    "{text} unless it is meant",
    "unseen": "{number} of {total} sentences begin or end with a character that is not seen, {found} ({text})",
    "decomposed": "{number} of {total} sentences hold characters in decomposed form, {found}; tokenizers take them for "
    "others than the composed ones. Write the {text} in Unicode form NFC unless that is meant",
    "quotes": "{number} of {total} rows have a field in quotation marks, {found}; TSV has no quotes, so they belong to "
    "the value ({text} or label). If a program added them, save the file as CSV or JSONL",
    "late quotes": "{number} of {total} rows have a blank before a quotation mark, {found}; quotes count at the very "
    "beginning of a field only, so blank and quotes belong to the value ({text} or label)",
    "header": "{number} of {total} rows repeat the header, {found}; they are read as sentences ({text})",
    "objects": "{number} of {total} sentences are JSON objects, {found}; a .txt file is read as one sentence a line. "
    "Call it .jsonl if its fields are meant",
    "table": "the first line looks like the header of a table, {found}; a .txt file is read as one sentence a line. "
    "Call it .csv or .tsv if its fields are meant",
    "glued": SENTENCE_END
    + ": {number} of {total} values begin with a letter or digit where the sentence ends without a blank, {found}; "
    "they are taken for the rest of a word. Put a blank before them in the field {expected} unless that is meant",
}
"""What is said of each kind of thing that can be found in the rows."""


@dataclass
class _Count:
    """How often something was found, with the first two examples."""

    number: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, example: str) -> None:
        """One more."""
        self.number += 1
        if len(self.examples) < 2 and example not in self.examples:
            self.examples.append(example)

    def __str__(self) -> str:
        return f"such as {' and '.join(map(shown, self.examples))}"


class Notes:
    """What is nearly right in a dataset's rows, gathered while they are read.

    kind: name of the file's format.

    >>> notes = Notes(Dataset(name="d", path="a.csv"), "csv")
    >>> notes.see(pa.record_batch({"text": ["a", "b", "c"], "label": ["x", "x", "x "]}))
    >>> print(notes.lines()[0])
    label: 1 value has several forms that differ in blanks, case, unseen characters or zeros only: `x` (2) and \
`x ` (1). They count as different; make them one in the field `label` of the file
    """

    def __init__(self, dataset: Dataset, kind: str) -> None:
        self._dataset, self._kind = dataset, kind
        self._said: list[str] = []
        self._values: dict[str, Counter[str]] = {}
        self._found: dict[str, _Count] = {}
        self._num_rows = 0
        self._num_labelled = Counter[str]()
        self._header = fold(dataset.text) if kind in ("csv", "tsv") and dataset.prompt is None else None

    def add(self, lines: Iterable[str]) -> None:
        """Notes that were made elsewhere."""
        self._said.extend(lines)

    def see(self, batch: pa.RecordBatch) -> None:
        """More rows."""
        for name in self._categories(batch.schema):
            counts = self._values.setdefault(name, Counter())
            if len(counts) <= MOST_VALUES:
                counts.update(batch.column(name).to_pylist())
        texts = batch.column("text").to_pylist()
        if self._kind == "txt" and not self._num_rows and _is_header(texts[0]):
            self._note("table", texts[0])
        # Labels that are numbers have no forms to be confused.
        for name in self._label_columns(batch.schema):
            values = batch.column(name).to_pylist()
            self._num_labelled[name] += len(values) - values.count("")
        has_labels = self._is_text(batch.schema, "label")
        labels = batch.column("label").to_pylist() if has_labels else [""] * len(texts)
        for text, label in zip(texts, labels, strict=True):
            self._see_text(text)
            if '"' in text or '"' in label:
                self._see_quotes(text, label)
        if "expected_next" in batch.schema.names:
            for text, expected in zip(texts, batch.column("expected_next").to_pylist(), strict=True):
                if _goes_on_a_word(text, expected):
                    self._note("glued", expected)
        self._num_rows += len(texts)

    def _categories(self, schema: pa.Schema) -> list[str]:
        others = [name for name in ("group", *self._dataset.keep) if self._is_text(schema, name)]
        return [*self._label_columns(schema), *others]

    def _label_columns(self, schema: pa.Schema) -> list[str]:
        return [name for name in ("label", *self._dataset.more_labels) if self._is_text(schema, name)]

    def _is_text(self, schema: pa.Schema, name: str) -> bool:
        return name in schema.names and schema.field(name).type == pa.string()

    def _see_text(self, text: str) -> None:
        # Every row comes here: nearly all of them begin and end in ink, are ASCII, and longer than a word.
        if not ("!" <= text[0] <= "~" and "!" <= text[-1] <= "~"):
            self._see_ends(text)
        if not text.isascii():
            self._see_unicode(text)
        if len(text) < 8 and fold(text) in LIKE_NONE:
            self._note("none", text)
        if self._header is not None and len(text) <= len(self._header) + MARGIN and fold(text) == self._header:
            self._note("header", text)
        if self._kind == "txt" and text[0] == "{" and _is_object(text):
            self._note("objects", text)

    def _see_ends(self, text: str) -> None:
        if text[-1].isspace():
            self._note("blank end", text)
        if is_unseen(text[0]) or is_unseen(text[-1]):
            self._note("unseen", text)

    def _see_quotes(self, text: str, label: str) -> None:
        if self._kind == "tsv" and (_is_quoted(text) or _is_quoted(label)):
            self._note("quotes", text if _is_quoted(text) else label)
        if self._kind == "csv" and (_is_quoted(text, blank=True) or _is_quoted(label, blank=True)):
            self._note("late quotes", text if _is_quoted(text, blank=True) else label)

    def _see_unicode(self, text: str) -> None:
        if not unicodedata.is_normalized("NFC", text):
            self._note("decomposed", text)
        if "\ufffd" in text:
            self._note("replaced", text)
        if TWICE_ENCODED.search(text) and _is_twice_encoded(text):
            self._note("twice encoded", text)

    def _note(self, what: str, example: str) -> None:
        self._found.setdefault(what, _Count()).add(example)

    def lines(self) -> list[str]:
        """One line for each kind of thing that was found."""
        lines = list(self._said)
        for name, counts in self._values.items():
            if len(counts) <= MOST_VALUES:
                lines += note_on_values(name, counts, self._field(name), is_label=name in self._num_labelled)
        for name in self._num_labelled:
            lines += self._many_labels(name)
        for what, found in self._found.items():
            lines.append(self._line(what, found))
        return lines

    def _many_labels(self, column: str) -> list[str]:
        """A note where most labels of a column are different: their field may hold something else."""
        labels, num_labelled = sorted(filter(None, self._values.get(column, ()))), self._num_labelled[column]
        if len(labels) <= MANY_LABELS or (len(labels) <= MOST_VALUES and 2 * len(labels) <= num_labelled):
            return []
        is_number = not self._dataset.labels and all(NUMERAL.fullmatch(label) for label in labels)
        as_number = ", `label_type: number` predicts it as a number" if is_number else ""
        number = f"more than {MOST_VALUES:,}" if len(labels) > MOST_VALUES else f"{len(labels):,}"
        remedy = "leave it out of `labels` if it is none" if self._dataset.labels else "`label: null` ignores it"
        return [
            f"the field {quoted(self._field(column))} holds {number} different labels in {num_labelled:,} rows, "
            f"such as {shown(labels[0])} and {shown(labels[1])}; {remedy}{as_number}"
        ]

    def _field(self, name: str) -> str:
        """The field of the file that a column comes from."""
        return str({"label": self._dataset.label_field, "group": self._dataset.group}.get(name, name))

    def _line(self, what: str, found: _Count) -> str:
        values = {"number": f"{found.number:,}", "total": f"{self._num_rows:,}", "found": found}
        text = f"field {quoted(self._dataset.text)}" if self._dataset.prompt is None else "text of `template`"
        fields = {"text": text, "expected": quoted(self._dataset.expected_next or "")}
        return FOUND[what].format(**values, **fields)


def note_on_values(column: str, counts: Mapping[str, int], field_name: str, *, is_label: bool) -> list[str]:
    """A note where values of a column are nearly the same, and one where they begin or end with what is not seen.

    counts: rows by value; the empty one stands for none. is_label: whether the column holds labels.
    """
    groups = near_groups(value for value in counts if value)
    notes = []
    if groups:
        examples = "; ".join(" and ".join(f"{shown(v)} ({counts[v]:,})" for v in group[:3]) for group in groups[:2])
        values = "1 value has" if len(groups) == 1 else f"{len(groups):,} values have"
        notes.append(
            f"{column}: {values} several forms that differ in blanks, case, unseen characters or zeros only: "
            f"{examples}. They count as different; make them one in the field {quoted(field_name)} of the file"
        )
    none = [value for value in counts if fold(value) in LIKE_NONE]
    if none:
        examples = " and ".join(f"{shown(v)} ({counts[v]:,})" for v in none[:2])
        remedy = f"; `missing: {json.dumps(none)}` makes that none" if is_label else ""
        values = "1 value is" if len(none) == 1 else f"{len(none):,} values are"
        notes.append(
            f"{column}: {values} what programs write for a missing one, {examples}, and counted like any other (field "
            f"{quoted(field_name)}){remedy}"
        )
    alone = {value for group in groups for value in group}
    odd = [v for v in counts if v and v not in alone and (v != v.strip() or is_unseen(v[0]) or is_unseen(v[-1]))]
    if odd:
        found = _Count()
        for value in odd:
            found.add(value)
        values = "1 value begins or ends" if len(odd) == 1 else f"{len(odd):,} values begin or end"
        notes.append(
            f"{column}: {values} with a blank or a character that is not seen, {found}; it belongs to the value (field "
            f"{quoted(field_name)})"
        )
    return notes


def note_across(labels_of: Mapping[str, Iterable[str]]) -> list[str]:
    """A note where labels of different datasets are nearly the same. labels_of: by the dataset's name.

    >>> note_across({"a": ["Toronto"], "b": ["toronto"]})[0].partition(":")[0]
    '1 label differs between datasets in blanks, case, unseen characters or zeros only'
    """
    homes: dict[str, list[str]] = {}
    for name, labels in labels_of.items():
        for label in labels:
            if label:
                homes.setdefault(label, []).append(name)
    groups = [g for g in near_groups(homes) if not set.intersection(*(set(homes[label]) for label in g))]
    if not groups:
        return []
    examples = "; ".join(" and ".join(f"{shown(label)} ({homes[label][0]})" for label in g[:2]) for g in groups[:2])
    differ = "label differs" if len(groups) == 1 else "labels differ"
    return [
        f"{len(groups):,} {differ} between datasets in blanks, case, unseen characters or zeros only: {examples}. They "
        "count as different, with colours of their own; make them one in the fields of the files (`label`)"
    ]


def notes_on_job(dataset: Dataset) -> list[str]:
    """Notes on what the job itself says of a dataset: its candidates and its template.

    >>> notes_on_job(Dataset(name="d", path="a.txt", candidates=(" Toronto", "Montreal")))[0].partition(",")[0]
    'candidates: 1 of 2 begins with a letter or digit'
    """
    notes, candidates, template = [], dataset.candidates, dataset.around
    glued, ends = _Count(), _Count()
    for candidate in candidates:
        if candidate[0].isdigit() or candidate[0].lower() != candidate[0].upper():
            glued.add(candidate)
        if candidate.strip() and (candidate[-1].isspace() or any(map(is_unseen, candidate))):
            ends.add(candidate)
    if glued.number and not (template or "{text}").removesuffix("{text}").endswith(" "):
        begin = "begins" if glued.number == 1 else "begin"
        notes.append(
            f"candidates: {glued.number} of {len(candidates)} {begin} with a letter or digit, {glued}; after a "
            "sentence that ends without a blank that is taken for the rest of a word. Quote a blank: `' Toronto'`"
        )
    if ends.number:
        notes.append(f"candidates: {ends.number} of {len(candidates)} end in a blank or hold unseen characters, {ends}")
    if template is not None and template != "chat" and template[-1].isspace():
        notes.append(
            f"template: ends in a blank, {shown(template)}; the last token of every sentence may be that blank"
        )
    return notes


def said(lines: Iterable[str], dataset: Dataset) -> list[str]:
    """Those notes on a dataset's rows that hold under its template."""
    goes_on = dataset.around is not None and not dataset.around.endswith("{text}")
    return [line for line in lines if not (goes_on and line.startswith(SENTENCE_END))]


def _goes_on_a_word(text: str, continuation: str) -> bool:
    first = continuation[0]
    return (first.isdigit() or first.lower() != first.upper()) and not text[-1].isspace()


def _is_quoted(value: str, *, blank: bool = False) -> bool:
    """Whether a value begins and ends with a quotation mark, after a blank or not."""
    bare = value.lstrip(" ") if blank else value
    return len(bare) > 1 and bare[0] == bare[-1] == '"' and (len(bare) < len(value)) is blank


def _is_twice_encoded(text: str) -> bool:
    try:
        return text.encode("cp1252").decode() != text
    except UnicodeError:
        return False


def _is_header(line: str) -> bool:
    """Whether a line looks like the names of a table's columns."""
    return any(cell == "text" or looks_like(cell, "text") for mark in ",;\t" for cell in line.split(mark))


def _is_object(text: str) -> bool:
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict)
