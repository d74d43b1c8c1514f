"""Writes docs/reference/python.md from the docstrings of `drillcore.__all__`: signatures, meanings, examples, errors.

python -m tools.python_reference
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import drillcore
from drillcore.errors import DrillcoreError

PAGE = Path("docs/reference/python.md")
HEAD = """\
# Python reference

What `import drillcore` gives, made from the docstrings (`make reference`). Everything else in the package may change
without notice. Nothing heavy is imported before it is used: `import drillcore` takes milliseconds.
"""
NOT_RUN = "<!-- not run: the example of a docstring; tests/unit/test_examples.py runs it -->"
WIDTH = 100


class _Bare(str):
    """An annotation as it is written, without quotes around it."""

    __slots__ = ()
    __repr__ = str.__str__


def page() -> str:
    """The whole page."""
    lines = [HEAD]
    names = sorted(drillcore.__all__, key=lambda n: (inspect.ismodule(getattr(drillcore, n)), n.lower()))
    for name in names:
        entry = getattr(drillcore, name)
        if not isinstance(entry, ModuleType):
            lines += _entry(entry, f"drillcore.{name}", 2)
        elif entry is drillcore.errors:
            lines += _errors()
    return "\n".join(lines).rstrip() + "\n"


def _entry(entry: Any, name: str, level: int) -> Iterator[str]:
    """A function, class, method, property or value, and the public methods of a class."""
    yield f"{'#' * level} {name}\n"
    if callable(entry):
        yield f"<!-- not run: a signature -->\n```python\n{_signature(entry, name.rpartition('.')[2])}\n```\n"
    yield from _prose(
        inspect.getdoc(entry) or "", set(inspect.signature(entry).parameters) if callable(entry) else set()
    )
    if inspect.isclass(entry):
        for attribute, member in vars(entry).items():
            shown = inspect.isroutine(member) or isinstance(member, property | classmethod | staticmethod)
            if shown and not attribute.startswith("_") and inspect.getdoc(member):
                yield from _entry(getattr(entry, attribute), f"{name.rpartition('.')[2]}.{attribute}", level + 1)


def _signature(entry: Any, name: str) -> str:
    """On one line, or a parameter a line where it is long."""
    found = inspect.signature(entry)
    parameters = [p.replace(annotation=_bare(p.annotation)) for p in found.parameters.values()]
    line = f"{name}{found.replace(parameters=parameters, return_annotation=_bare(found.return_annotation))}"
    if len(line) <= WIDTH:
        return line
    shown = list(map(str, parameters))
    keyword = next((i for i, p in enumerate(parameters) if p.kind is p.KEYWORD_ONLY), None)
    if keyword is not None and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        shown.insert(keyword, "*")
    returns = line.rpartition(" -> ")[2] if " -> " in line else "None"
    return f"{name}(\n" + "".join(f"    {p},\n" for p in shown) + f") -> {returns}"


def _bare(annotation: Any) -> Any:
    return _Bare(annotation) if isinstance(annotation, str) else annotation


def _prose(doc: str, parameters: Collection[str] = ()) -> Iterator[str]:
    """A docstring: its paragraphs, what it says of each parameter as an item of a list, and its examples."""
    for paragraph in re.split(r"\n\s*\n", doc):
        if paragraph.lstrip().startswith(">>>"):
            yield f"{NOT_RUN}\n```pycon\n{paragraph}\n```\n"
            continue
        text = " ".join(paragraph.removeprefix("Raises:\n").split())
        if paragraph.startswith("Raises:\n"):
            text = f"Raises {text}"
        # `model: what it is. sentences: what they are.`, and what follows the last one.
        parts = re.split(rf"(?:^|(?<=\. )|(?<=; ))({'|'.join(parameters)}): ", text) if parameters else [text]
        if parts[0]:
            yield f"{parts[0]}\n"
        last = len(parts) - 2
        for i in range(1, len(parts), 2):
            meaning, _, rest = parts[i + 1].partition(" Returns ") if i == last else (parts[i + 1], "", "")
            meaning, _, raised = meaning.partition(" Raises ") if i == last else (meaning, "", "")
            yield f"- `{parts[i]}`: {meaning.strip()}" + ("\n" if i == last else "")
            yield from [f"{word} {said}\n" for word, said in (("Returns", rest), ("Raises", raised)) if said]


def _errors() -> Iterator[str]:
    """The tree of errors with the exit status that each gives a command."""
    yield "## drillcore.errors\n"
    yield from _prose(inspect.getdoc(drillcore.errors) or "")
    yield "| error | is a | exit status | when |"
    yield "| --- | --- | --- | --- |"
    yield from _rows(DrillcoreError)
    yield ""


def _rows(error: type[DrillcoreError]) -> Iterator[str]:
    meaning = (inspect.getdoc(error) or "").split("\n")[0]
    yield f"| `{error.__name__}` | `{error.__bases__[0].__name__}` | {error.exit_status} | {meaning} |"
    for below in error.__subclasses__():
        if below.__module__ == DrillcoreError.__module__:
            yield from _rows(below)


def main() -> int:
    """Write the page."""
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
