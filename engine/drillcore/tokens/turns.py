"""Where the messages of a conversation stand in what a chat template writes, proved by putting other text beside them.

Rendering the first messages alone would not tell: templates drop the reasoning of earlier answers, or write a default
system prompt. The whole conversation is rendered with a mark before a message's text, and with one after it, twice each
with different marks: what differs is where the mark stands, and without it the rendering must be the conversation's
own, but for spaces that the template trims. What stands between the two marks must be the text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from drillcore.errors import DrillcoreError, TextError
from drillcore.tokens.characters import Characters, characters_of
from drillcore.tokens.tokenizer import Around, Tokenizer

# Neither begins or ends as the other does, nor as anything that a template writes.
MARKS = ("\ue010a\ue011", "\ue012b\ue013")
# Templates drop what stands before it in answers, or write it elsewhere.
REASONED = "</think>"

Message = Mapping[str, Any]


class _UnprovedError(Exception):
    """Why the place of a message is not proved."""


@dataclass(frozen=True)
class Turn:
    """One message in a rendered conversation: the characters `first` to before `stop` are its text, without spaces that
    the template trims, and without the reasoning that it drops. problem: why that is not proved; empty where it is.
    """

    role: str
    first: int
    stop: int
    problem: str = ""


@dataclass(frozen=True)
class TurnTokens:
    """The tokens of one message.

    first, stop: of its text. begins, ends: whether no token of its text reaches into what stands around it. marker: the
    special token that ends the turn, which the template writes also where no other message follows; prompt: the last
    token before the text. None where there is none. problem: why the place is not known; empty where it is.
    """

    role: str
    first: int = 0
    stop: int = 0
    begins: bool = False
    ends: bool = False
    marker: int | None = None
    prompt: int | None = None
    problem: str = ""


def turns_of(tokenizer: Tokenizer, messages: Sequence[Message], arguments: Mapping[str, Any]) -> tuple[str, list[Turn]]:
    """The rendered conversation, and where each message stands in it, or why that is not proved.

    Raises TextError for what is no conversation, JobError where the template cannot be used.
    """
    if not messages:
        raise TextError("a conversation has no message", hint="Leave its row out.")
    if not all(isinstance(message, Mapping) for message in messages):
        raise TextError("a message is no mapping of role and content", hint="Each is {role: ..., content: ...}.")
    rendered, turns = tokenizer.render_messages(messages, arguments), list[Turn]()
    for number, message in enumerate(messages):
        role = str(message.get("role", "no role"))
        try:
            first, stop = _Marked(tokenizer, messages, number, arguments, rendered).text()
            turns.append(Turn(role, first, stop))
        except _UnprovedError as error:
            turns.append(Turn(role, 0, 0, f"message {number} ({role}): {error}"))
    return rendered, turns


class _Marked:
    """A conversation with marks in one of its messages."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        messages: Sequence[Message],
        number: int,
        arguments: Mapping[str, Any],
        rendered: str,
    ) -> None:
        self._tokenizer, self._arguments, self._rendered = tokenizer, arguments, rendered
        self._before, self._message, self._after = messages[:number], messages[number], messages[number + 1 :]

    def text(self) -> tuple[int, int]:
        """Where the message's text begins and ends; raises _UnprovedError."""
        text = self._message.get("content")
        if not isinstance(text, str):
            raise _UnprovedError("its content is not a text")
        reasoned = text.rfind(REASONED) + len(REASONED) if REASONED in text else 0
        stop = self._place(text, "")
        for head in dict.fromkeys((0, reasoned)):
            try:
                first = self._place(text[:head], text[head:])
            except _UnprovedError:
                if head == reasoned:
                    raise
                continue
            if self._rendered[first:stop].strip() == text[head:].strip() and first <= stop:
                return first, stop
        raise _UnprovedError("the chat template changes it")

    def _place(self, before: str, after: str) -> int:
        """Where a mark between two parts of the text would stand in the rendering, which must not change around it."""
        one, other = (self._render(f"{before}{mark}{after}") for mark in MARKS)
        if one == other:
            raise _UnprovedError("the chat template does not write it")
        place = _num_equal(one, other)
        rest = len(one) - _num_equal(one[:place:-1], other[:place:-1])
        if one[place:rest] != MARKS[0]:
            raise _UnprovedError("the chat template writes it more than once, or changes it")
        left, right, rendered = one[:place], one[rest:], self._rendered
        # The mark keeps spaces that the template trims from the end of a text.
        for cut in {0, len(left) - len(left.rstrip())} if before else {0}:
            for skipped in {0, len(right) - len(right.lstrip())} if after else {0}:
                if rendered == left[: len(left) - cut] + right[skipped:]:
                    return len(left) - cut
        raise _UnprovedError("what the chat template writes around it depends on its text")

    def _render(self, content: str) -> str:
        try:
            messages = [*self._before, {**self._message, "content": content}, *self._after]
            return self._tokenizer.render_messages(messages, self._arguments)
        except DrillcoreError as error:
            raise _UnprovedError(str(error)) from None

    def marker(self) -> str:
        """What follows the text where no other message does; empty where that cannot be told."""
        arguments, messages = {**self._arguments, "add_generation_prompt": False}, [*self._before, self._message]
        try:
            last = self._tokenizer.render_messages(messages, arguments)
            _, stop = _Marked(self._tokenizer, messages, len(messages) - 1, arguments, last).text()
        except (DrillcoreError, _UnprovedError):
            return ""
        return last[stop:]


def _num_equal(one: str, other: str) -> int:
    """How many characters are equal from the beginning on."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def tokens_of_turns(
    tokenizer: Tokenizer, messages: Sequence[Message], arguments: Mapping[str, Any]
) -> tuple[list[int], Characters, list[TurnTokens]]:
    """Token ids of a rendered conversation, their characters in it, and the tokens of each message, or why not.

    A message has none where its place is not proved, where it has no text, or where the template's own marks of what
    the assistant says (`{% generation %}`) tell otherwise. Raises what `turns_of` and `characters_of` raise.
    """
    rendered, turns = turns_of(tokenizer, messages, arguments)
    ((ids, characters),) = characters_of(tokenizer, [rendered], Around("chat"))
    marks = tokenizer.assistant_marks(messages, arguments)
    found = []
    for number, turn in enumerate(turns):
        over = characters.over(turn.first, turn.stop)
        problem = turn.problem
        if not problem and over is None:
            problem = f"message {number} ({turn.role}): it has no token"
        if not problem and over is not None and marks is not None and not _agrees(ids, marks, turn.role, over):
            problem = f"message {number} ({turn.role}): the template's own marks of what the assistant says differ"
        if problem or over is None:
            found.append(TurnTokens(turn.role, problem=problem))
            continue
        tail = _Marked(tokenizer, messages, number, arguments, rendered).marker()
        begins = bool(characters.start_T[over.first] >= turn.first)
        marker = _marker(tokenizer, ids, characters, over.stop, tail)
        prompt = over.first - 1 if over.first else None
        found.append(TurnTokens(turn.role, over.first, over.stop, begins, over.exact, marker, prompt))
    return ids, characters, found


def _marker(tokenizer: Tokenizer, ids: Sequence[int], characters: Characters, stop: int, tail: str) -> int | None:
    """The special token that begins what follows a text, spaces aside."""
    for number in range(stop, len(ids)):
        piece = tokenizer.written_bytes(ids[number]).decode(errors="replace")
        if ids[number] in tokenizer.special:
            stands = characters.start_T[number] < characters.stop_T[number]
            return number if stands and tail.lstrip().startswith(piece) else None
        if piece.strip():
            return None
    return None


def _agrees(ids: Sequence[int], marks: tuple[list[int], list[int]], role: str, over: Any) -> bool:
    """Whether a template's marks are of the assistant's tokens alone; those of an answer are marked wholly or not."""
    marked_ids, mask = marks
    said = np.array(mask[over.first : over.stop], bool)
    if list(marked_ids) != list(ids) or (role != "assistant" and said.any()):
        return False
    return bool(said.all() or not said.any())
