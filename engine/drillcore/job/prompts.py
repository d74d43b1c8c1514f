"""Templates of a dataset: text around each sentence, or a Jinja template that writes a text from the fields of a row.

A Jinja template is a program. It runs in Jinja's sandbox, without what differs from one time to the next, and ends here
as an error where it is wrong or too much.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from drillcore.job.choices import did_you_mean
from drillcore.system.bounds import BeyondBounds, bounded

if TYPE_CHECKING:
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

PLACE = "{text}"
# All fields of a row by name, for names that Jinja cannot read: row["the first answer"].
ROW = "row"
# What a template may take to be read, or for one row: a thousand times what one that is in use takes.
SECONDS, BYTES = 2.0, 512 * 2**20
# Draws, and objects that remember or show where they lie in memory.
LEFT_OUT = ("lipsum", "cycler", "joiner")
# The place of a sentence, and not Jinja's {{text}}.
_BARE_PLACE = re.compile(r"(?<!\{)\{text\}(?!\})")


class Null:
    """What stands for null, or for NaN, in a template: false, equal to none, with nothing in it and not to be written.

    path: of the value in its row. what: null or NaN. A template must not reach them, so that they are no attributes
    that it could name.
    """

    def __init__(self, path: str, what: str) -> None:
        self._path, self._what = path, what

    def __bool__(self) -> bool:
        return False

    def __eq__(self, other: object) -> bool:
        return other is None or isinstance(other, Null)

    def __hash__(self) -> int:
        return hash(None)

    def _error(self) -> NullError:
        return NullError(self._path, self._what)

    def __str__(self) -> str:
        raise self._error()

    def __iter__(self) -> Any:
        raise self._error()

    def __len__(self) -> int:
        raise self._error()

    def __getitem__(self, name: Any) -> Any:
        raise self._error()

    __repr__ = __str__


class NullError(ValueError):
    """A template writes a value that is null."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(f"{path} is {what}")
        self.path, self.what = path, what


@dataclass(frozen=True)
class Prompt:
    """A Jinja template, and the fields of a row that it names."""

    source: str
    template: jinja2.Template
    fields: tuple[str, ...]


def is_prompt(template: str | None) -> bool:
    """Whether a template is one of Jinja.

    >>> is_prompt("Review: {text}"), is_prompt("{{ question }} {{ answer }}"), is_prompt("chat")
    (False, True, False)
    """
    return template is not None and ("{{" in template or "{%" in template)


def check_template(template: str) -> str:
    """A template as it was given; raises ValueError, with a message that goes on after a name, for one that is none."""
    if template == "chat":
        return template
    if is_prompt(template):
        prompt_of(template)
    elif template.count(PLACE) != 1:
        raise ValueError("must hold {text} exactly once, fields as {{ field }}, or be `chat`")
    return template


@lru_cache(64)
def prompt_of(source: str) -> Prompt:
    """A Jinja template, ready to be filled; raises ValueError, with a message that goes on after a name.

    >>> prompt_of("{{ question }} {% if context %}{{ context }}{% endif %} {{ row['first answer'] }}").fields
    ('context', 'first answer', 'question')
    """
    from jinja2 import TemplateSyntaxError

    if _BARE_PLACE.search(source):
        raise ValueError("holds {text} beside Jinja's {{ }}; there a field is {{ text }}, and a brace {{ '{' }}")
    try:
        with bounded(SECONDS, BYTES):
            fields = _fields(source)
            template = environment().from_string(source)
    except TemplateSyntaxError as error:
        what = (error.message or "is wrong").rstrip(".")
        raise ValueError(f"line {error.lineno}: {what[:1].lower()}{what[1:]}") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except BeyondBounds as beyond:
        raise ValueError(f"{beyond} to be read") from None
    if not fields:
        raise ValueError("names no field of the rows; one is written {{ field }}")
    return Prompt(source, template, fields)


def _fields(source: str) -> tuple[str, ...]:
    """The fields that a template names; raises ValueError, and what Jinja raises."""
    from jinja2 import meta, nodes

    tree = environment().parse(source)
    others = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)
    for other in (node for kind in others for node in tree.find_all(kind)):
        raise ValueError(f"line {other.lineno}: a template stands alone: it can include, import and extend nothing")
    names = meta.find_undeclared_variables(tree)
    if ROW not in names:
        return tuple(sorted(names))
    rows = [node for node in tree.find_all(nodes.Name) if node.name == ROW]
    found = [node for node in tree.find_all(nodes.Getitem) if node.node in rows and isinstance(node.arg, nodes.Const)]
    if len(found) != len(rows):
        raise ValueError("`row` holds all fields, and gives one by its name: {{ row['first answer'] }}")
    return tuple(sorted((names - {ROW}) | {str(node.arg.value) for node in found if isinstance(node.arg, nodes.Const)}))


@cache
def environment() -> ImmutableSandboxedEnvironment:
    """Jinja's sandbox, where the same row gives the same text at any time."""
    from jinja2 import StrictUndefined, pass_context
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Absent(StrictUndefined):
        """What is not there, and what is."""

        @property
        def _undefined_message(self) -> str:
            if not isinstance(self._undefined_obj, dict):
                return super()._undefined_message
            names = [str(name) for name in self._undefined_obj]
            near = did_you_mean(self._undefined_name, names)
            return f"no `{self._undefined_name}` in an object of {', '.join(names[:10]) or 'nothing'}{near}"

    # A function that takes the context is not asked for constants while a template is read.
    made = ImmutableSandboxedEnvironment(
        undefined=Absent, finalize=pass_context(_written), autoescape=False, keep_trailing_newline=True
    )
    for name in LEFT_OUT:
        del made.globals[name]
    del made.filters["random"]
    made.filters["tojson"] = _to_json
    made.tests["none"] = lambda value: value is None or isinstance(value, Null)
    return made


def _written(context: Any, value: Any) -> Any:
    """A value that stands for itself in a text; raises ValueError for any other, NullError for null."""
    from jinja2 import Undefined

    if value is None:
        raise NullError("", "null")
    if isinstance(value, str | int | float):
        return value
    if isinstance(value, Null | Undefined):  # which say themselves what is wrong
        return str(value)
    if isinstance(value, list | tuple | dict):
        kind = "a list" if not isinstance(value, dict) else "an object"
        remedy = "`| tojson` writes it as JSON" + ("" if kind == "an object" else ", `| join(', ')` its items")
    else:
        kind, remedy = f"a {type(value).__name__}", "`| string` writes it as Python does"
    if callable(value):
        kind, remedy = "a function", "call it with ( ), or read a field of that name with ['...']"
    raise ValueError(f"writes {kind}, which is no text: {remedy}")


def _to_json(value: Any, indent: int | None = None) -> str:
    """JSON as it stands in a text: nothing is escaped for HTML, and nothing is sorted."""
    return json.dumps(value, ensure_ascii=False, indent=indent, default=_null)


def _null(value: Any) -> None:
    if not isinstance(value, Null):
        raise ValueError(f"writes a {type(value).__name__}, which JSON has not: `| string` writes it as Python does")
