"""Where the messages of a conversation stand in what a chat template writes, proved by putting other text in place.

Rendering the first messages alone would not tell: templates drop the reasoning of earlier answers, or write a default
system prompt. The whole conversation is rendered with two different texts in place of one message; what differs is
where that message stands, and what is the same around it must be around the message itself too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from drillcore.errors import TextError
from drillcore.tokens.characters import Characters, characters_of
from drillcore.tokens.tokenizer import Around, Tokenizer

# Neither begins or ends as the other does, nor as anything that a template writes.
SENTINELS = ("\ue010a\ue011", "\ue012b\ue013")
HINT = "Positions by turn need to know where each message stands; `last` works."

Message = Mapping[str, Any]


@dataclass(frozen=True)
class Turn:
    """One message in a rendered conversation: the characters `first` to before `stop` are what is written of it."""

    role: str
    first: int
    stop: int


@dataclass(frozen=True)
class TurnTokens:
    """The tokens of one message.

    first, stop: of its text. begins, ends: whether no token of its text reaches into what stands around it. marker: the
    special token that ends the turn; prompt: the last token before the text. None where there is none.
    """

    role: str
    first: int
    stop: int
    begins: bool
    ends: bool
    marker: int | None
    prompt: int | None


def turns_of(tokenizer: Tokenizer, messages: Sequence[Message], arguments: Mapping[str, Any]) -> tuple[str, list[Turn]]:
    """The rendered conversation, and where each message stands in it.

    Raises TextError, which names the message, where that cannot be proved: the template leaves it out, writes it more
    than once, changes it, or writes other things around it than around other text.
    """
    if not messages:
        raise TextError("a conversation has no message", hint="Leave its row out.")
    rendered, turns = tokenizer.render_messages(messages, arguments), list[Turn]()
    for number, message in enumerate(messages):
        others = [{**message, "content": sentinel} for sentinel in SENTINELS]
        with_one, with_other = (
            tokenizer.render_messages([*messages[:number], other, *messages[number + 1 :]], arguments)
            for other in others
        )
        before = _num_equal(with_one, with_other)
        after = _num_equal(with_one[:before:-1], with_other[:before:-1])
        if with_one == with_other:
            raise _unproved(number, message, "the chat template does not write it")
        if with_one[before : len(with_one) - after] != SENTINELS[0]:
            raise _unproved(number, message, "the chat template writes it more than once, or changes it")
        same = rendered[:before] == with_one[:before] and (not after or rendered.endswith(with_one[-after:]))
        text = message.get("content")
        if not isinstance(text, str):
            raise _unproved(number, message, "its content is not a text")
        # A part of it only: templates trim, and drop the reasoning of earlier answers.
        if not same or len(rendered) < before + after or rendered[before : len(rendered) - after] not in text:
            raise _unproved(number, message, "what the chat template writes around it depends on its text")
        turns.append(Turn(str(message.get("role", "")), before, len(rendered) - after))
    return rendered, turns


def _num_equal(one: str, other: str) -> int:
    """How many characters are equal from the beginning on."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def tokens_of_turns(
    tokenizer: Tokenizer, messages: Sequence[Message], arguments: Mapping[str, Any]
) -> tuple[list[int], list[TurnTokens]]:
    """Token ids of a rendered conversation, and the tokens of each message.

    Raises TextError where a message's place cannot be proved, has no token, or where the template's own marks of what
    the assistant says (`{% generation %}`) tell otherwise.
    """
    rendered, turns = turns_of(tokenizer, messages, arguments)
    ((ids, characters),) = characters_of(tokenizer, [rendered], Around("chat"))
    special_T = np.isin(ids, list(tokenizer.special))
    found = []
    for number, turn in enumerate(turns):
        over = characters.over(turn.first, turn.stop)
        if over is None:
            raise _unproved(number, messages[number], "it has no token")
        following = turns[number + 1].first if number + 1 < len(turns) else len(rendered)
        found.append(
            TurnTokens(
                turn.role,
                over.first,
                over.stop,
                bool(characters.start_T[over.first] >= turn.first),
                over.exact,
                _marker(characters, special_T, over.stop, following),
                over.first - 1 if over.first else None,
            )
        )
    _check_marks(tokenizer, messages, arguments, ids, found)
    return ids, found


def _marker(characters: Characters, special_T: Any, stop: int, following: int) -> int | None:
    """The first special token after a turn's text and before the next one's."""
    inside = np.flatnonzero(special_T[stop:] & (characters.start_T[stop:] < max(1, following)))
    return int(stop + inside[0]) if len(inside) else None


def _check_marks(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    arguments: Mapping[str, Any],
    ids: Sequence[int],
    found: Sequence[TurnTokens],
) -> None:
    """Raise TextError where the template marks what the assistant says, and marks other tokens."""
    marks = tokenizer.assistant_marks(messages, arguments)
    if marks is None:
        return
    marked_ids, mask = marks
    for number, turn in enumerate(found):
        said = mask[turn.first : turn.stop]
        if list(marked_ids) != list(ids) or any(bool(m) != (turn.role == "assistant") for m in said):
            raise _unproved(number, messages[number], "the template's own marks of what the assistant says differ")


def _unproved(number: int, message: Message, why: str) -> TextError:
    role = message.get("role", "no role")
    return TextError(f"message {number} ({role}): {why}", hint=HINT)
