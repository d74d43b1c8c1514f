"""Lines of a text file: opening it through gzip or zstd, cutting it at line feeds, and decoding it.

Holds one line and one chunk at a time. A line that must be refused is reported with its number, repaired and passed on,
so that the lines after it are read correctly and all problems are found at once.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

Row = tuple[int, dict[str, Any] | None]
"""Line that a row begins on (Parquet: the row's number), counted from 1, and its fields; None if it was refused."""
Item = TypeVar("Item")
Line = tuple[int, str]
"""A line's number, counted from 1, and its text without the line feed."""
OnProblem = Callable[[int | None, str], None]
"""Takes a line, or None for the whole file, and what is wrong there."""

CHUNK_BYTES = 1 << 20
MAX_LINE_BYTES = 256 << 20
LONE_RETURN = "holds a carriage return; lines must end in LF or CRLF"
SAVE_IT = "; save the file as UTF-8, or name its `encoding`, such as cp1252"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
SIGNATURES = {
    b"\xff\xfe": "is UTF-16, not UTF-8: save it as UTF-8",
    b"\xfe\xff": "is UTF-16, not UTF-8: save it as UTF-8",
    b"\x1f\x8b": "is compressed with gzip: end its name in .gz",
    b"\x28\xb5\x2f\xfd": "is compressed with zstd: end its name in .zst",
    b"PAR1": "is a Parquet file: end its name in .parquet",
    b"PK\x03\x04": "is a zip file: unpack it",
    b"ARROW1": "is an Arrow file: end its name in .arrow",
}


@dataclass(frozen=True)
class TextFile:
    """A file to read. compression: gzip, zstd or empty. delimiter: what the job says is between fields, or empty.

    encoding: of its characters. drops_blank: a blank line is no mistake but a row that is left out.
    """

    path: Path
    compression: str = ""
    delimiter: str = ""
    encoding: str = "utf-8"
    drops_blank: bool = False

    def lines(self, on_problem: OnProblem) -> Iterator[Line]:
        """The lines of the file; see `open_lines`."""
        return open_lines(self.path, self.compression, on_problem, self.encoding)

    def without_blanks(
        self, items: Iterator[tuple[int, Item]], is_blank: Callable[[Item], bool], on_problem: OnProblem
    ) -> Iterator[tuple[int, Item | None]]:
        """Items without blank ones at the end; others are refused, or left out where the job says so."""
        if not self.drops_blank:
            return without_trailing_blanks(items, is_blank, on_problem)
        return _blanks_as_none(items, is_blank)


class UnreadableError(Exception):
    """A file cannot be read any further; `line` is where, or None."""

    def __init__(self, line: int | None, message: str) -> None:
        super().__init__(message)
        self.line = line


def open_lines(path: Path, compression: str, on_problem: OnProblem, encoding: str = "utf-8") -> Iterator[Line]:
    """The lines of a file that is compressed with `gzip`, `zstd` or, where that is empty, nothing.

    Raises:
        UnreadableError: a line is longer than MAX_LINE_BYTES, or the file is of another kind.
        OSError, EOFError, zlib.error: the file cannot be read, or is damaged.
    """
    with open_file(path, compression) as stream:
        yield from _decoded(stream, on_problem, encoding)


def open_file(path: Path, compression: str) -> Any:
    """The bytes of a file as a stream; raises OSError."""
    if compression == "gzip":
        return gzip.open(path, "rb")
    if compression == "zstd":
        # Arrow's read() leaks its buffer whenever it fails; readinto(), which this calls, does not.
        return io.BufferedReader(pa.input_stream(str(path), compression="zstd"), CHUNK_BYTES)
    return path.open("rb")


def _decoded(stream: Any, on_problem: OnProblem, encoding: str) -> Iterator[Line]:
    name, remedy = ("UTF-8", SAVE_IT) if encoding == "utf-8" else (encoding, "; name another `encoding`")
    for number, raw in enumerate(_split(stream), 1):
        if number == 1:
            check_signature(raw)
            if encoding != "utf-8" and raw.startswith(BYTE_ORDER_MARK):
                raise UnreadableError(1, f"begins with the mark of UTF-8: take out `encoding: {encoding}`")
            raw = raw.removeprefix(BYTE_ORDER_MARK)
        try:
            line = raw.decode(encoding)
        except UnicodeDecodeError as error:
            byte = f"byte {raw[error.start]:#04x} at byte {error.start + 1} of the line"
            on_problem(number, f"is not {name}: {byte}{remedy}")
            line = raw.decode(encoding, errors="replace")
        if "\0" in line:
            on_problem(number, "holds a NUL character")
            line = line.replace("\0", "\ufffd")
        yield number, line


def check_signature(first: bytes) -> None:
    """Raise UnreadableError where a file begins like one of another kind."""
    for signature, message in SIGNATURES.items():
        if first.startswith(signature):
            raise UnreadableError(None, message)


def _split(stream: Any) -> Iterator[bytes]:
    """Split at line feeds only, not at U+2028, a form feed or a lone carriage return, which text may hold."""
    pieces: list[bytes] = []
    num_bytes = num_lines = 0
    while chunk := stream.read(CHUNK_BYTES):
        first, *rest = chunk.split(b"\n")
        pieces.append(first)
        num_bytes += len(first)
        if num_bytes > MAX_LINE_BYTES:
            raise UnreadableError(num_lines + 1, f"is longer than {MAX_LINE_BYTES >> 20} MiB")
        if rest:
            yield b"".join(pieces)
            yield from rest[:-1]
            num_lines += len(rest)
            pieces, num_bytes = [rest[-1]], len(rest[-1])
    if num_bytes:
        yield b"".join(pieces)


def without_line_end(line: str) -> str | None:
    r"""A line without the carriage return of a CRLF; None where it holds one that ends no line.

    >>> without_line_end("a\r"), without_line_end("a\rb")
    ('a', None)
    """
    text = line.removesuffix("\r")
    return None if "\r" in text else text


def quoted(name: str) -> str:
    r"""A name out of a file, in back quotes, made safe and short enough for a message.

    >>> quoted("text"), quoted("x" * 100)[-6:]
    ('`text`', 'xx...`')
    >>> print(quoted("red\x1b[31m"))
    `red\x1b[31m`
    """
    short = name if len(name) <= 60 else name[:57] + "..."
    return f"`{short if short.isprintable() else ascii(short)[1:-1]}`"


def without_trailing_blanks(
    items: Iterator[tuple[int, Item]], is_blank: Callable[[Item], bool], on_problem: OnProblem
) -> Iterator[tuple[int, Item | None]]:
    """Drop blank lines at the end; report the first one of a run of them anywhere else."""
    blank = 0
    for line, item in items:
        if is_blank(item):
            blank = blank or line
            continue
        if blank:
            on_problem(blank, "is empty: every line must hold a row")
            yield blank, None
            blank = 0
        yield line, item


def _blanks_as_none(
    items: Iterator[tuple[int, Item]], is_blank: Callable[[Item], bool]
) -> Iterator[tuple[int, Item | None]]:
    """None for each blank item that another one follows."""
    blanks = list[int]()
    for line, item in items:
        if is_blank(item):
            blanks.append(line)
            continue
        yield from ((blank, None) for blank in blanks)
        blanks.clear()
        yield line, item


def is_blank(line: str) -> bool:
    """Whether a line holds nothing but white space."""
    return not line or line.isspace()


def named_twice(names: Sequence[str]) -> str | None:
    """The first name that is in a list more than once; None where there is no such name.

    >>> named_twice(["text", "label", "text"])
    'text'
    """
    return next((name for name in names if names.count(name) > 1), None)
