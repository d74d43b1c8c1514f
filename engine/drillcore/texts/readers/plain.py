"""One sentence a line."""

from __future__ import annotations

from collections.abc import Iterator

from drillcore.texts.readers.lines import (
    Line,
    Report,
    Row,
    _filled,
    _is_blank,
)


def _text(lines: Iterator[Line], report: Report) -> Iterator[Row]:
    for number, line in _filled(lines, _is_blank, report):
        text = None if line is None else line.removesuffix("\r")
        if text is not None and "\r" in text:
            report(number, "holds a carriage return; lines must end in LF or CRLF")
            text = None
        yield number, None if text is None else {"text": text}
