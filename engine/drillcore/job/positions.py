"""Which tokens of a sentence a group of the store holds states of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from drillcore.job.common import MOST, Closed, Name, check_name

KINDS = ("last", "mean", "all", "turns", "span", "text", "after")
# The kinds whose places are found by characters, and so need a name of their own.
BY_CHARACTERS = ("span", "text", "after")
SHORT = ("last", "mean", "all", "turns")
Count = Annotated[int, Field(ge=1, le=MOST)]


class MeanOf(Closed):
    """What a mean leaves out."""

    skip_first: Annotated[int, Field(ge=0, le=MOST)] = 0
    """Leave out the first so many tokens of each sentence, a begin-of-sequence token counted: the first token's states
    can be a hundred times as large as all others'."""
    special_tokens: bool = False
    """Take special tokens into the mean too."""


class AllOf(Closed):
    """How much may be stored."""

    max_bytes: Annotated[int, Field(ge=1, le=MOST)] | None = None
    """Bytes of states, before compression, that the group may have; above 10 GB a run asks for this or for --yes."""
    measure: bool = False
    """Measure, project and draw the group as well."""


class TurnsOf(Closed):
    """Which place of which messages."""

    at: Literal["content_last", "end_of_turn", "generation_prompt", "mean"] = "content_last"
    """The last token of the message's text; the special token that ends the turn; the last token before the text;
    or the mean over the text."""
    role: Name | None = None
    """Messages of this role only; all messages where it is left out."""


class Position(Closed):
    """One kind of place, and how its group is called."""

    TAKES: ClassVar = "last, mean, all, turns, or a mapping such as {last: 4}"

    last: Annotated[int, Field(ge=1, le=65_536)] | None = None
    """The last so many tokens of each sentence."""
    mean: MeanOf | None = None
    """The mean over the tokens of each sentence, accumulated in float32."""
    all: AllOf | None = None
    """Every token."""
    turns: TurnsOf | None = None
    """One place of each message of a conversation."""
    span: tuple[Name, Name] | None = None
    """Fields with the first character and the one after the last (code points of the sentence's text)."""
    text: Name | None = None
    """Field with a text that stands in the sentence."""
    after: Annotated[str, Field(min_length=1, max_length=10_000)] | None = None
    """A text as it is encoded, template included: the token in which its last occurrence ends."""
    occurrence: Literal["first", "last"] | Count = "first"
    """Of `text`: which occurrence counts, by name or number from 1."""
    pool: Literal["last", "mean", "all"] = "last"
    """Of `span` and `text`: the last token that overlaps the characters, the mean over all that do, or each of them."""
    name: Name | None = None
    """Part of the group's name after `~`; by default mean, last-N, all or turns."""
    layers: tuple[Annotated[int, Field(ge=0, le=MOST)], ...] | None = None
    """Layers of this group, out of extract.layers; all of them where it is left out."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if isinstance(value, str) and value in SHORT:
            return {value: 1 if value == "last" else {}, **({"name": ""} if value == "last" else {})}
        if isinstance(value, str):
            raise ValueError(f"is one of {', '.join(SHORT)}, or a mapping such as {{last: 4}}")
        return value

    @field_validator("name")
    @classmethod
    def _name(cls, value: str | None) -> str | None:
        return value if value in (None, "") else check_name(value)

    @field_validator("layers")
    @classmethod
    def _layers(cls, value: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if value is not None and (not value or len(set(value)) != len(value)):
            raise ValueError("names a layer twice" if value else "names no layer")
        return None if value is None else tuple(sorted(value))

    @model_validator(mode="after")
    def _is_one(self) -> Position:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"must hold one of {', '.join(KINDS)}" + (f", not {' and '.join(given)}" if given else ""))
        if self.name is None and self.kind in BY_CHARACTERS:
            raise ValueError(f"{self.kind}: needs a `name:`, which is a part of the group's")
        if self.name == "" and (self.kind != "last" or self.last != 1 or self.layers is not None):
            raise ValueError("name: is empty")
        if self.kind not in ("span", "text") and self.pool != "last":
            raise ValueError("pool: belongs to `span` and `text`")
        if self.kind != "text" and self.occurrence != "first":
            raise ValueError("occurrence: belongs to `text`")
        return self

    @property
    def kind(self) -> str:
        """Which of the kinds it is."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def is_last(self) -> bool:
        """Whether it is the last token of each sentence, in the dataset's own group."""
        return self.name == ""

    @property
    def called(self) -> str:
        """What stands after `~` in the name of its group."""
        return (f"last-{self.last}" if self.kind == "last" else self.kind) if self.name is None else self.name

    @property
    def is_mean(self) -> bool:
        """Whether each row is a mean."""
        return self.kind == "mean" or self.pool == "mean" or (self.turns is not None and self.turns.at == "mean")

    @property
    def is_ragged(self) -> bool:
        """Whether a sentence may have any number of rows."""
        return (self.kind == "last" and not self.is_last) or self.kind in ("all", "turns") or self.pool == "all"

    @property
    def is_measured(self) -> bool:
        """Whether its groups are measured, projected and drawn."""
        return self.all is None or self.all.measure

    @property
    def by_characters(self) -> bool:
        """Whether its places are found by characters."""
        return self.kind in BY_CHARACTERS

    def record(self) -> Any:
        """What decides its places, JSON-ready, as a group's attributes have it."""
        if self.is_last:
            return "last"
        kept = self.model_dump(mode="json", exclude_defaults=True, exclude={"name", "layers"})
        return {name: value for name, value in kept.items() if name != "all"} | ({"all": {}} if self.all else {})


LAST = Position.model_validate("last")


def distinct(positions: tuple[Position, ...]) -> tuple[Position, ...]:
    """The positions; raises ValueError where there is none, or two have the same name."""
    if not positions:
        raise ValueError("names no position")
    names = [position.called for position in positions]
    twice = sorted({name or "last" for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{twice[0]} is named twice; give one of them another `name:`")
    return positions


def in_words(records: Iterable[Any]) -> str:
    """Which hidden states those of some groups are, given their positions as their attributes have them.

    >>> in_words(["last"]), in_words([{"mean": {"skip_first": 1}}]), in_words(["last", {"mean": {}}])
    ('last-token hidden states', 'hidden states (mean over the tokens, without the first 1)', 'hidden states')
    """
    distinct: list[Any] = []
    for record in records:
        distinct += [record] * (record not in distinct)
    if distinct == ["last"]:
        return "last-token hidden states"
    if len(distinct) != 1 or not isinstance(distinct[0], dict):
        return "hidden states"
    return f"hidden states ({_words(distinct[0])})"


def _words(record: dict[str, Any]) -> str:
    pool = {"mean": "mean over the tokens of ", "all": "all tokens of "}.get(record.get("pool", ""), "last token of ")
    for kind, value in record.items():
        match kind:
            case "mean":
                skipped = value.get("skip_first")
                return "mean over the tokens" + (f", without the first {skipped}" if skipped else "")
            case "last":
                return f"the last {value} tokens"
            case "all":
                return "all tokens"
            case "span":
                return f"{pool}the characters from {value[0]} to {value[1]}"
            case "text":
                return f"{pool}the text in {value}"
            case "after":
                return f"where {value!r} ends"
            case "turns":
                role = f" of {value['role']}" if value.get("role") else ""
                return f"{value.get('at', 'content_last').replace('_', ' ')} of each message{role}"
    return "tokens"
