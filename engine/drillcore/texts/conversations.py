"""Conversations of a dataset: lists of messages, kept as one JSON text each, from which a chat template is filled."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Fields of a message beside its role that must be text where they are there.
CONTENT = "content"


def conversation(value: Any, system: str | None = None) -> str:
    """A value as a conversation in canonical JSON; raises ValueError, with a message that goes on after a name.

    value: a list of messages, that list as JSON text, as tables hold it, or one `with_tools`. system: message of those
    that do not begin with a system message.

    >>> conversation([{"role": "user", "content": "Hello"}], system="Be brief.")
    '{"messages":[{"content":"Be brief.","role":"system"},{"content":"Hello","role":"user"}]}'
    """
    tools = None
    if isinstance(value, WithTools):
        value, tools = value.messages, _parsed(value.tools)
    value = _parsed(value)
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise ValueError("is no list of messages")
    messages = [_message(number, each) for number, each in enumerate(value)]
    if not messages:
        raise ValueError("holds no message")
    if system is not None and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system})
    found: dict[str, Any] = {"messages": messages}
    if tools is not None:
        found["tools"] = tools
    try:
        text = json.dumps(found, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"cannot be written as JSON: {error}") from None
    if "\0" in text or "\\u0000" in text:
        raise ValueError("holds a NUL character")
    return text


@dataclass(frozen=True)
class WithTools:
    """A conversation, and the tools that its row names."""

    messages: Any
    tools: Any


def with_tools(row: dict[str, Any], field: str) -> dict[str, Any]:
    """A row whose conversation has the tools of the row's own field `tools`, if it has any."""
    if field not in row or row.get("tools") in (None, "", []):
        return row
    return {**row, field: WithTools(row[field], row["tools"])}


def _parsed(value: Any) -> Any:
    """What a JSON text holds; any other value as it is. Raises ValueError."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError("holds a text that is not JSON: a list of messages is wanted") from None


def _message(number: int, value: Any) -> dict[str, Any]:
    """A message without what is null; raises ValueError."""
    if not isinstance(value, Mapping):
        raise ValueError(f"message {number} is no mapping of role and content")
    message = {str(name): given for name, given in value.items() if given is not None}
    role = message.get("role")
    if not isinstance(role, str) or not role.strip():
        raise ValueError(f"message {number} has no role")
    if CONTENT not in message and "tool_calls" not in message:
        raise ValueError(f"message {number} ({role}) has no content")
    if not isinstance(message.get(CONTENT, ""), str):
        raise ValueError(f"the content of message {number} ({role}) is no text")
    return message


def messages_of(text: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The messages of a conversation, and the arguments of the chat template that it brings along.

    >>> messages_of('{"messages":[{"content":"Hello","role":"user"}]}')
    ([{'content': 'Hello', 'role': 'user'}], {})
    """
    found = json.loads(text)
    return found["messages"], {name: value for name, value in found.items() if name != "messages"}
