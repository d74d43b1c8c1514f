"""A JSON array of objects, one object after the other: the file is never held as a whole."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Sequence
from typing import Any

from drillcore.texts.readers.jsonl import OTHERWISE, WORDS, distinct, json_type
from drillcore.texts.readers.lines import (
    BYTE_ORDER_MARK,
    CHUNK_BYTES,
    MAX_LINE_BYTES,
    OnProblem,
    Row,
    TextFile,
    UnreadableError,
    check_signature,
    open_file,
)

# A mistake so near the end of what was read may be that more follows.
NEAR_END = 16
AS_ROWS = 'one array of objects is wanted, as `to_json(path, orient="records")` of pandas writes it'


def read_json(file: TextFile, wanted: Sequence[str], on_problem: OnProblem) -> Iterator[Row]:
    """Rows with the fields of the objects of one array, numbered from 1."""
    with open_file(file.path, file.compression) as stream:
        window = _Window(stream)
        first = window.peek()
        if not first:
            return
        if first != "[":
            lines = "; where each line holds an object, end its name in .jsonl" if first == "{" else ""
            raise UnreadableError(None, f"holds no array: {AS_ROWS}{lines}")
        window.skip()
        number = 0
        if window.peek() == "]":
            window.skip()
        else:
            while True:
                number += 1
                value = window.value(number)
                if not isinstance(value, dict):
                    on_problem(number, f"is not a JSON object but {json_type(value)}")
                yield number, value if isinstance(value, dict) else None
                sign = window.peek()
                if sign not in (",", "]") or not sign:
                    raise UnreadableError(number, "is followed by neither a comma nor the closing bracket of the array")
                window.skip()
                if sign == "]":
                    break
        if window.peek():
            raise UnreadableError(number or None, f"more follows the array; {AS_ROWS}")


class _Window:
    """What was read of a file and is not taken yet."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._text, self._place, self._at_end = stream, "", 0, False
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._decoder = json.JSONDecoder(object_pairs_hook=distinct)
        head = stream.read(CHUNK_BYTES)
        check_signature(head)
        self._add(head.removeprefix(BYTE_ORDER_MARK))

    def peek(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            while self._place < len(self._text) and self._text[self._place] in " \t\r\n":
                self._place += 1
            if self._place < len(self._text):
                return self._text[self._place]
            if self._at_end:
                return ""
            self._add(self._stream.read(CHUNK_BYTES))

    def skip(self) -> None:
        """Go on after the next character."""
        self._place += 1

    def value(self, number: int) -> Any:
        """The next value; raises UnreadableError, with its number, where there is none."""
        self.peek()
        while True:
            try:
                value, self._place = self._decoder.raw_decode(self._text, self._place)
                return value
            except json.JSONDecodeError as error:
                is_cut = error.msg.startswith("Unterminated") or len(self._text) - error.pos < NEAR_END
                if self._at_end or not is_cut:
                    what = WORDS.get(error.msg, OTHERWISE)
                    raise UnreadableError(number, f"is not JSON: {what}") from None
            except RecursionError:
                raise UnreadableError(number, "is nested too deeply") from None
            except ValueError as error:
                what = "holds a number too long to read" if "int_max_str" in str(error) else str(error)
                raise UnreadableError(number, what) from None
            if len(self._text) - self._place > MAX_LINE_BYTES:
                raise UnreadableError(number, f"is longer than {MAX_LINE_BYTES >> 20} MiB")
            # As much again, so that a long object is not read over and over.
            self._add(self._stream.read(max(CHUNK_BYTES, len(self._text) - self._place)))

    def _add(self, chunk: bytes) -> None:
        self._at_end = not chunk
        try:
            text = self._decode(chunk, not chunk)
        except UnicodeDecodeError as error:
            byte = f"byte {error.object[error.start]:#04x}"
            raise UnreadableError(None, f"is not UTF-8: {byte}; save the file as UTF-8") from None
        if "\0" in text:
            raise UnreadableError(None, "holds a NUL character")
        self._text, self._place = self._text[self._place :] + text, 0
