"""YAML as a job file holds it: safe, with field names as they are written, and mistakes told in plain words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from drillcore.errors import JobError
from drillcore.job.choices import shortened

QUOTE_IT = "put it in quotes if it is text"
# What a value may not begin with, beside what YAML reads as something else.
RESERVED = "@`%&*!|>,]}"
PATH = re.compile(r"""["']?([A-Za-z]:\\|\\\\)""")
# A field whose colon has no blank after it.
GLUED = re.compile(r"[\s-]*[\w.-]+:[^\s:][^:]*$")
# Words for what the loader takes a value for by its look.
KINDS = {"timestamp": "date", "int": "number", "float": "number", "bool": "truth value"}


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice, where YAML takes the last one, and reads every key as it is written."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            # PyYAML goes by the look of a value: 2001-99-99 is a date to it, and `._` a number, until it converts them.
            kind = KINDS.get(node.tag.rpartition(":")[2], "value")
            raise _Wrong(f"{shortened(node.value)} is not a valid {kind}: {QUOTE_IT}", node.start_mark) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise _Wrong("a mapping (`name: value`) is wanted here", node.start_mark)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                what = "a field's name begins with a bracket: put text that begins with { or [ in quotes"
                raise _Wrong(what, key.start_mark)
            if key.value in seen:
                raise _Wrong(f"{_quoted(key.value)} is given twice", key.start_mark)
            seen.add(key.value)
        self.flatten_mapping(node)
        # Left to YAML, the names no, 2024-01-01 and 007 would be false, a date and 7.
        return {key.value: self.construct_object(value, deep=deep) for key, value in node.value}


class _Wrong(yaml.YAMLError):
    """A mistake that is told in our own words already."""

    def __init__(self, problem: str, mark: Any) -> None:
        super().__init__(problem)
        self.problem_mark = mark


def parse(text: str, where: str, hint: str) -> tuple[yaml.Node | None, Any]:
    """A YAML document, as nodes with their lines and as values; raises JobError, whatever is wrong with it.

    where: what the message begins with: a file, or an option of the command line.

    >>> parse("models: [a", "job.yaml", "")
    Traceback (most recent call last):
    drillcore.errors.JobError: job.yaml: a bracket that opens with [ is never closed
    """
    try:
        loader = _Loader(text)
        tree = loader.get_single_node()
        return tree, None if tree is None else loader.construct_document(tree)
    except yaml.YAMLError as error:
        line, problem = _told(error, text)
        place = f":{line}" if line and "\n" in text else ""
        raise JobError(f"{where}{place}: {problem}", hint=hint) from None
    except RecursionError:
        raise JobError(f"{where}: nested too deeply", hint=hint) from None


def _told(error: yaml.YAMLError, text: str) -> tuple[int, str]:
    """The line of a mistake, from 1 (0 where it is not known), and what is wrong there."""
    mark = getattr(error, "problem_mark", None)
    if isinstance(error, _Wrong):
        return error.problem_mark.line + 1, str(error)
    if isinstance(error, yaml.reader.ReaderError):
        code = error.character if isinstance(error.character, int) else ord(str(error.character)[:1] or "\0")
        number = text[: error.position].count("\n") + 1 if isinstance(error.position, int) else 0
        return number, f"holds a character that YAML does not allow (U+{code:04X})"
    if mark is None:
        return 0, "is not YAML"
    lines = text.split("\n")
    opened = getattr(error, "context_mark", None) or mark
    context, problem = str(getattr(error, "context", "") or ""), str(getattr(error, "problem", "") or "")
    at = opened if "quoted scalar" in context or "flow" in context or "simple key" in context else mark
    line = lines[at.line] if at.line < len(lines) else ""
    before = lines[at.line - 1] if 0 < at.line <= len(lines) else ""
    if "mapping values" in problem and GLUED.match(before):
        return at.line, _without_colon(before)
    known = next(_known(context, problem, line, at.column), "")
    return at.line + 1, known or "is not YAML: check the quotes, the brackets and the indentation here"


def _known(context: str, problem: str, line: str, column: int) -> Iterator[str]:
    """What is wrong in a line, the likeliest first; nothing where no mistake that is known has these marks."""
    yield from _of_quotes(context, problem, line)
    value = line.partition(": ")[2].strip()
    if "'\\t'" in problem:
        yield (
            "begins with a tab: YAML indents with blanks" if not line[:column].strip() else "holds a tab: write a blank"
        )
    if "flow sequence" in context or "flow mapping" in context:
        bracket = "[" if "sequence" in context else "{"
        yield f"a bracket that opens with {bracket} is never closed"
    if "could not find expected ':'" in problem:
        yield _without_colon(line)
    if (value.startswith("{") and "<scalar>" in problem) or (value.startswith("{") and "mapping values" in problem):
        yield "text that begins with { stands in quotes"
    if "mapping values" in problem:
        if line[:column].rstrip().count(": ") or ":" in line[:column].strip():
            yield "holds a second colon and blank: put text with `: ` in quotes"
        yield "is indented deeper than the line before, which has a value already, or that line lacks its colon"
    if "sequence entries are not allowed" in problem:
        yield "a list begins on the line below its field, each item with `- `"
    if "<block end>, but found" in problem and problem[-2:-1] in "]}":
        yield f"a bracket that closes with {problem[-2]} was never opened"
    yield from _of_signs(problem, value or line.strip())
    if "another document" in problem:
        yield "a second document begins (---): a job file holds one"
    if "<document start>" in problem:
        yield "a job file begins with a field, such as `models:`"
    if "<block end>" in problem and "<scalar>" not in problem:
        yield "is not indented as the lines that it belongs to"


def _of_quotes(context: str, problem: str, line: str) -> Iterator[str]:
    if "double-quoted" in context and ("escape" in problem):
        path = "; a path may have / instead" if PATH.search(line) else ""
        yield f"a backslash in double quotes begins an escape: take single quotes{path}"
    if "quoted scalar" in context:
        yield "a quote that opens here is never closed"
    if "<block end>, but found '<scalar>'" in problem:
        quote = next((q for q in "'\"" if q in line), "")
        if quote:
            yield f"text goes on after its closing quote: put the other kind of quotes around text that holds {quote}"


def _of_signs(problem: str, value: str) -> Iterator[str]:
    sign = value.lstrip("- ")[:1]
    what = ("cannot start any token", "undefined alias", "the tag", "alphabetic or numeric", "node content")
    if sign and sign in RESERVED and any(part in problem for part in (*what, "a comment or a line break", "block end")):
        yield f"text that begins with {sign} stands in quotes"


def _without_colon(line: str) -> str:
    """What to say of a line that should be a field and has no colon with a blank after it."""
    name, colon, value = line.strip().lstrip("- ").partition(":")
    if colon and value:
        return f"a blank is missing after the colon: {_quoted(f'{name}: {value}')}"
    return "is neither a field (`name: value`) nor an item of a list (`- value`)"


def _quoted(text: str) -> str:
    short = text if len(text) <= 60 else f"{text[:57]}..."
    return f"`{short if short.isprintable() else ascii(short)[1:-1]}`"
