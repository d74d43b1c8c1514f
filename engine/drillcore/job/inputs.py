"""The datasets of a job."""

from __future__ import annotations

import codecs
import re
import unicodedata
from pathlib import PurePath
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from drillcore.job.choices import shortened
from drillcore.job.common import MOST, Closed, Name, check_name
from drillcore.job.hub import HubRows, is_on_hub
from drillcore.job.labels import check_labels, with_one_label
from drillcore.job.positions import Position, distinct
from drillcore.job.prompts import check_template, is_prompt


def name_of(path: str) -> str:
    """The name of a dataset that has none: that of its file without endings, with - for what no name may hold.

    Raises ValueError where nothing is left of it.

    >>> name_of("texts/été 2024.csv.gz"), name_of("_a.b.jsonl")
    ('ete-2024', 'a.b')
    """
    stem = PurePath(without_compression(path)).stem
    letters = "".join(c for c in unicodedata.normalize("NFKD", stem) if not unicodedata.combining(c))
    name = re.sub(r"[^A-Za-z0-9._+=@-]+", "-", letters).strip("-").lstrip("._+=@-")
    if not name:
        raise ValueError(f"{shortened(path)} gives the dataset no name of letters a to z or digits: give it a `name:`")
    return name


def without_compression(path: str) -> str:
    """A path without the ending that says how the file is compressed.

    >>> without_compression("a.csv.gz")
    'a.csv'
    """
    return re.sub(r"\.(gz|zst)$", "", path, flags=re.IGNORECASE)


def _ending(path: str) -> str:
    return PurePath(without_compression(path)).suffix.lower()


def _name_of_paths(path: Any) -> str:
    """The name of a dataset that has none; raises ValueError where several files are listed."""
    if isinstance(path, list | tuple) and len(path) > 1:
        raise ValueError("several files give the dataset no name: give it a `name:`")
    # Where there is no path that is the mistake, and the name none.
    first = path[0] if isinstance(path, list | tuple) and path else path
    if isinstance(first, str) and is_on_hub(first):
        return name_of(f"{HubRows.of(first).name}.hub")
    return name_of(first) if isinstance(first, str) else "dataset"


class SplitOf(Closed):
    """What a probe is tested on in place of rows of its own dataset."""

    TAKES: ClassVar = "`{test: DATASET}`"

    test: Name
    """Another dataset of the job, whose labelled rows are all tested; the probe learns from all of this one's."""


class Dataset(Closed):
    """Sentences and what is known of each."""

    TAKES: ClassVar = "a path, or a mapping with `path`"

    name: Name
    """Name of the dataset's group in the store; by default the file's name without its endings."""
    path: str | tuple[str, ...]
    """JSONL, JSON, CSV, TSV, Parquet, Arrow or plain text (.gz and .zst too), or a folder written by `save_to_disk` of
    datasets, relative to the job file. Several files: a list, or a pattern such as parts/part-*.parquet, whose files
    are read in natural order. Or a split of a data set of the hub: hf://datasets/ORG/NAME/SPLIT, with CONFIG/ before
    the split where it has several configurations."""
    revision: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """Branch, tag or commit of a data set of the hub; by default its branch main, as it is when the run begins."""
    delimiter: str | None = None
    """Character between the fields of a .csv file, or `tab`; by default a comma, or what a first line `sep=;` names."""
    encoding: str = "utf-8"
    """How .csv, .tsv, .jsonl and .txt files write characters, such as cp1252 for those of older Windows programs."""
    text: str = "text"
    """Field that holds the sentence."""
    empty: Literal["error", "drop"] = "error"
    """Rows whose text is null, empty or blank: stop, or leave them out and say how many."""
    label: str | None = "auto"
    """Field that holds the label; auto is `label` where the rows have it, null ignores it."""
    label_type: Literal["auto", "classes", "number"] = "auto"
    """What labels are: classes that a probe tells apart, or numbers that it predicts; auto takes them for numbers where
    all are, and one has a fraction."""
    labels: tuple[str, ...] = ()
    """Several fields of labels, in place of `label`: measures, pictures and report for each; the first is the main
    one."""
    unlabelled: Literal["error", "keep", "drop"] = "error"
    """Rows whose label, or one of several, is null, empty or absent: stop, keep them (grey, left out of the measures of
    that label), or leave them out."""
    missing: tuple[str, ...] = ()
    """Values that stand for none, such as NA or nan, in labels and in kept numbers; null and empty always do."""
    group: str | None = None
    """Field whose values must not be split between the folds of a measure."""
    split: str | SplitOf | None = None
    """Field that says of each row whether a probe learns from it or is tested on it: `train` or `test`; or `{test:
    DATASET}`, another dataset that it is tested on. By default the probe is cross-validated."""
    expected_next: str | None = None
    """Field that holds the text expected next, with its leading space; its first token after the sentence counts."""
    candidates: tuple[str, ...] = ()
    """Continuations, with their leading spaces, whose exact log-probabilities are wanted."""
    keep: tuple[str, ...] = ()
    """Further fields to keep as coordinates."""
    limit: Annotated[int, Field(ge=1, le=MOST)] | None = None
    """Take the first so many sentences."""
    template: Annotated[str, Field(max_length=10**6)] | None = None
    """Text around each sentence, holding {text}; or `chat` for the tokenizer's own chat template; or a Jinja template
    over the fields of the row, {{ question }} Answer: {{ answer }}, which writes the sentence itself."""
    templates: dict[Name, Annotated[str, Field(max_length=10**6)]] = Field(default={})
    """Several templates by name, in place of `template`: each makes a dataset of its own, DATASET~NAME, with the labels
    and kept fields of this one; what their sentences share is computed once."""
    chat: dict[str, str | bool | int | float] = Field(default={})
    """Arguments of the chat template, such as enable_thinking: false or date_string: 26 Jul 2024."""
    messages: str | None = None
    """Field that holds a conversation, a list of {role, content}, instead of a sentence; the tokenizer's own chat
    template writes it, with the rows' `tools` where they have some."""
    system: Annotated[str, Field(min_length=1, max_length=10**6)] | None = None
    """System message of the conversations that do not begin with one."""
    add_generation_prompt: bool = False
    """End each conversation with what the chat template writes before an answer."""
    positions: tuple[Position, ...] | None = None
    """Which tokens of this dataset; by default extract.positions."""
    branches: dict[Name, Annotated[str, Field(max_length=10**6)]] = Field(default={})
    """What else is asked of each sentence, by name: texts that hold {text}. Each is a dataset of its own, DATASET~NAME,
    with the labels of this one; what its sentences share with these is computed once."""
    cannot_follow: Literal["error", "skip"] = "error"
    """Where the tokens of expected_next or of a candidate cannot follow a sentence's own: stop, or leave them out."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        """A path alone, and a dataset without a name."""
        if isinstance(value, str):
            value = {"path": value}
        if isinstance(value, dict) and "name" not in value:
            value = {**value, "name": _name_of_paths(value.get("path"))}
        return with_one_label(value) if isinstance(value, dict) else value

    @field_validator("path")
    @classmethod
    def _path(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        paths = (value,) if isinstance(value, str) else value
        if not paths:
            raise ValueError("names no file")
        if len(paths) == 1:
            return HubRows.of(paths[0]).address if is_on_hub(paths[0]) else paths[0]
        if any(map(is_on_hub, paths)):
            raise ValueError("lists files, and one of them is on the hub: make that a dataset of its own")
        return paths

    @model_validator(mode="after")
    def _revision_of_the_hub(self) -> Dataset:
        if self.revision is not None and self.hub is None:
            raise ValueError("revision: is that of a data set of the hub, whose path begins with hf://datasets/")
        return self

    @property
    def hub(self) -> HubRows | None:
        """Where its rows are on the hub; None where they are in files."""
        return HubRows.of(self.path) if isinstance(self.path, str) and is_on_hub(self.path) else None

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths and patterns of the files, in order."""
        return (self.path,) if isinstance(self.path, str) else self.path

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        return check_name(value)

    @field_validator("delimiter")
    @classmethod
    def _delimiter(cls, value: str | None) -> str | None:
        if value is None or value == "tab":
            return value
        if len(value) != 1 or value.isalnum() or value in '"\r\n':
            signs = "no letter, digit, quotation mark or line end"
            raise ValueError(f"must be one character, in quotes (';'), {signs}; or tab (given: {shortened(value)})")
        return "tab" if value == "\t" else value

    @model_validator(mode="after")
    def _delimiter_of_csv(self) -> Dataset:
        if self.delimiter is not None and not all(_ending(path) == ".csv" for path in self.paths):
            raise ValueError("delimiter: is that of a .csv file; files of other kinds have none that can be set")
        return self

    @field_validator("encoding")
    @classmethod
    def _encoding(cls, value: str) -> str:
        try:
            found = codecs.lookup(value)
            is_plain = bytes(range(32, 127)).decode(found.name).encode("ascii") == bytes(range(32, 127))
            is_plain = is_plain and "\n".encode(found.name) == b"\n"
        except (LookupError, UnicodeError, ValueError):
            is_plain = False
        if not is_plain and value.lower().replace("_", "-") != "utf-8-sig":
            what = "is not an encoding whose letters a to z are those of ASCII, such as cp1252, latin-1 or shift_jis"
            raise ValueError(
                f"{shortened(value)} {what}; `iconv -f UTF-16 -t UTF-8` writes a file of another kind anew"
            )
        # A byte order mark of UTF-8 is skipped anyway.
        return "utf-8" if found.name == "utf-8-sig" else found.name

    @model_validator(mode="after")
    def _encoding_of_text(self) -> Dataset:
        plain = (".csv", ".tsv", ".jsonl", ".ndjson", ".txt")
        if self.encoding != "utf-8" and not all(_ending(path) in plain for path in self.paths):
            raise ValueError("encoding: is that of .csv, .tsv, .jsonl and .txt files; others say theirs themselves")
        return self

    @model_validator(mode="after")
    def _split_has_a_field_of_its_own(self) -> Dataset:
        others = {"text": self.text, "messages": self.messages, "label": self.label_field, "group": self.group}
        for name, field in {**others, "expected_next": self.expected_next}.items():
            if self.split_field is not None and self.split_field == field:
                raise ValueError(f"split: {shortened(field)} is the field of `{name}`; it needs one of its own")
        return self

    @model_validator(mode="after")
    def _type_of_labels(self) -> Dataset:
        if self.label is None and self.label_type != "auto":
            raise ValueError("label_type: is that of labels, and `label: null` ignores them")
        return self

    @model_validator(mode="after")
    def _labels_have_fields_of_their_own(self) -> Dataset:
        others = {"text": self.text, "messages": self.messages, "group": self.group, "split": self.split_field}
        named = {field: name for name, field in others.items() if field is not None}
        named |= {} if self.expected_next is None else {self.expected_next: "expected_next"}
        check_labels(self.labels, self.label, {**dict.fromkeys(self.keep, "keep"), **named})
        return self

    @property
    def split_field(self) -> str | None:
        """The field that says which rows a probe is tested on; None where there is none."""
        return self.split if isinstance(self.split, str) else None

    @property
    def tested_on(self) -> str | None:
        """The dataset that a probe is tested on, where it is another one."""
        return self.split.test if isinstance(self.split, SplitOf) else None

    @property
    def label_is_named(self) -> bool:
        """Whether the job names the field of the labels, so that it must be there."""
        return bool(self.labels) or self.label not in (None, "auto")

    @property
    def more_labels(self) -> tuple[str, ...]:
        """The fields of further labels, each a column of its own name; the main one is the column `label`."""
        return self.labels[1:]

    @property
    def label_field(self) -> str | None:
        """The field that labels come from if rows have it; None where the job wants none."""
        if self.labels:
            return self.labels[0]
        return (None if self.text == "label" else "label") if self.label == "auto" else self.label

    @field_validator("candidates")
    @classmethod
    def _candidates(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(value):
            raise ValueError("names an empty continuation")
        if len(set(value)) != len(value):
            raise ValueError("names a continuation twice")
        return value

    @field_validator("template")
    @classmethod
    def _template(cls, value: str | None) -> str | None:
        return None if value is None else check_template(value)

    @field_validator("templates")
    @classmethod
    def _templates(cls, value: dict[str, str]) -> dict[str, str]:
        for name, template in value.items():
            check_name(name)
            try:
                check_template(template)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        return value

    @model_validator(mode="after")
    def _templates_alone(self) -> Dataset:
        others = {"template": self.template, "messages": self.messages, "branches": self.branches or None}
        for name, other in others.items():
            if self.templates and other is not None:
                raise ValueError(f"templates: does not go with `{name}`; make that a dataset of its own")
        return self

    @model_validator(mode="after")
    def _text_or_fields(self) -> Dataset:
        if self.text != "text" and self._every_template and all(map(is_prompt, self._every_template)):
            raise ValueError(
                f"text: {shortened(self.text)} is not read: the template names fields itself, {{{{ {self.text} }}}}"
            )
        return self

    @property
    def _every_template(self) -> tuple[str, ...]:
        return (*self.templates.values(), *([] if self.template is None else [self.template]))

    @property
    def prompt(self) -> str | None:
        """The Jinja template that writes each sentence from the fields of its row; None where a field holds it."""
        return self.template if is_prompt(self.template) else None

    @property
    def around(self) -> str | None:
        """What is written around each sentence when it is encoded: text that holds {text}, `chat`, or None."""
        return None if is_prompt(self.template) else self.template

    @model_validator(mode="after")
    def _chat_needs_its_template(self) -> Dataset:
        if self.chat and "chat" not in self._every_template and self.messages is None:
            raise ValueError("chat holds arguments of the chat template: it needs `template: chat` or `messages`")
        if self.messages is None and (self.system is not None or self.add_generation_prompt):
            raise ValueError("system and add_generation_prompt belong to `messages`")
        if self.messages is not None and self.template is not None:
            raise ValueError("template: a conversation (`messages`) has that of the tokenizer")
        return self

    @field_validator("branches", "templates", mode="before")
    @classmethod
    def _names_of_branches(cls, value: Any) -> Any:
        odd = [name for name in value if not isinstance(name, str)] if isinstance(value, dict) else []
        if odd:
            raise ValueError(
                f"the name {odd[0]} is not text to YAML, which reads true, yes, on and numbers itself: quote it"
            )
        return value

    @field_validator("branches")
    @classmethod
    def _branches(cls, value: dict[str, str]) -> dict[str, str]:
        for name, template in value.items():
            check_name(name)
            if template.count("{text}") != 1:
                raise ValueError(f"{name}: must hold {{text}} exactly once")
        return value

    @model_validator(mode="after")
    def _branches_of_texts(self) -> Dataset:
        if self.branches and (self.messages is not None or self.template == "chat"):
            raise ValueError("branches: are asked of texts, and a chat template writes these sentences")
        return self

    @property
    def writes_after(self) -> bool:
        """Whether a template may write something after each sentence."""
        if self.messages is not None or self.template == "chat":
            return True
        every = (*self.branches.values(), *self._every_template)
        return any(not template.endswith("}}" if is_prompt(template) else "{text}") for template in every)

    @field_validator("positions")
    @classmethod
    def _positions(cls, value: tuple[Position, ...] | None) -> tuple[Position, ...] | None:
        return None if value is None else distinct(value)
