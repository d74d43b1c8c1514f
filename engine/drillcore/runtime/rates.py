"""How long pieces of work really took on this machine, kept in the cache, and what that says of others.

Each run adds what its stages took, and `drillcore plan` what it timed. A rate is seconds over `Piece.work`: how many
times as long as the reference machine this one takes. Nothing here is needed for a right result: what cannot be read is
made again, and what cannot be written is left.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from drillcore.errors import RunError
from drillcore.runtime.costs import Piece
from drillcore.system.cached import Entry, Opened
from drillcore.system.files import cache_dir, digest
from drillcore.system.machine import cpu_model, num_cores

Origin = Literal["run", "plan"]
# Kept of each kind with one setting and likeness, and of all; the latest ones stay.
MOST_ALIKE, MOST = 8, 512
# Of those that are nearest in size, so many decide together.
NEAREST = 3
# Where a time is known from, in words.
FROM_RUN, TIMED_NOW, TIMED_BEFORE = "an earlier run", "timed now", "timed by an earlier plan"
SCALED_SIZE = "scaled from an earlier run of another size"
SCALED_MODEL = "scaled from an earlier run of another model"
# How many times as large as another a piece may be to be about of its size.
MUCH = 5.0
# Increase this where `costs` counts work in another way.
VERSION = 1


@dataclass(frozen=True)
class Seen:
    """A piece of work, or several of a kind together, and what it took. origin: a run, or timed by `plan`."""

    kind: str
    setting: str
    like: str
    work: float
    seconds: float
    origin: Origin
    when: float


@dataclass(frozen=True)
class Found:
    """What a piece of work will take. source: where that is known from, in words."""

    seconds: float
    source: str


class Rates:
    """What was seen so far on this machine. since: what `plan` timed after that, in seconds of the clock, is new.

    >>> rates = Rates([Seen("measure", "", "", 10.0, 5.0, "run", 0.0)])
    >>> rates.find(Piece("measure", "measure", 30.0))
    Found(seconds=15.0, source='an earlier run')
    """

    def __init__(self, seen: Sequence[Seen], since: float = math.inf) -> None:
        self._seen, self._since = tuple(seen), since

    @classmethod
    def read(cls) -> Rates:
        """From the cache; none where there are none, or the file is damaged, which is removed."""
        seen = _entry().read(_parsed)
        if seen is None:
            # Work too short to be kept would leave it there, to be said by every run.
            _entry().remove()
        return cls(seen or ())

    def with_new(self, seen: Iterable[Seen]) -> Rates:
        """The same and what was seen just now."""
        new = list(seen)
        return Rates([*self._seen, *new], min([self._since, *(s.when for s in new)]))

    def find(self, piece: Piece) -> Found | None:
        """What a piece will take, by what was seen of its kind; None where nothing was.

        Earlier runs of about its size say most, then what `plan` timed, then runs of other sizes, and last other work
        of its kind, such as that of another model, whose rate is scaled.
        """
        if piece.work <= 0:
            return Found(0.0, "")
        of_kind = [s for s in self._seen if (s.kind, s.setting) == (piece.kind, piece.setting)]
        alike = [s for s in of_kind if s.like == piece.like]
        runs = [s for s in alike if s.origin == "run"]
        near = [s for s in runs if 1 / MUCH < s.work / piece.work < MUCH]
        timed = [s for s in alike if s.origin == "plan"]
        is_new = any(s.when >= self._since for s in timed)
        for seen, source in (
            (near, FROM_RUN),
            (timed, TIMED_NOW if is_new else TIMED_BEFORE),
            (runs, SCALED_SIZE),
            ([s for s in of_kind if s.origin == "run"], SCALED_MODEL),
        ):
            if seen:
                return Found(piece.work * _rate(seen, piece.work), source)
        return None

    def of_all(self, pieces: Iterable[Piece]) -> Found | None:
        """What several pieces will take, those alike as one; None where one is not known."""
        found = [self.find(piece) for piece in joined(pieces)]
        known = [f for f in found if f is not None]
        if len(known) < len(found):
            return None
        return Found(sum(f.seconds for f in known), ", ".join(dict.fromkeys(f.source for f in known if f.source)))


def joined(pieces: Iterable[Piece]) -> list[Piece]:
    """The pieces, those alike as one: what starts a stage is a part of its work.

    >>> [p.work for p in joined([Piece("measure", "measure", 2.0), Piece("measure", "measure", 3.0, group="m/d")])]
    [5.0]
    """
    alike: dict[tuple[str, str, str], Piece] = {}
    for piece in pieces:
        key = piece.kind, piece.setting, piece.like
        alike[key] = replace(piece, work=piece.work + (alike[key].work if key in alike else 0.0))
    return list(alike.values())


def add(seen: Iterable[Seen]) -> None:
    """Keep what was seen, in the cache; does nothing where the cache cannot be written.

    Of two that add at the same moment, one may be lost.
    """
    new = [s for s in seen if s.work > 0 and s.seconds > 0 and math.isfinite(s.seconds)]
    if new:
        with suppress(RunError, OSError):
            kept = _kept([*(_entry().read(_parsed) or ()), *new])
            _entry().write([asdict(s) for s in kept])


def seen_now(piece: Piece, seconds: float, origin: Origin) -> Seen:
    """A piece of work that has just taken so many seconds."""
    return Seen(piece.kind, piece.setting, piece.like, piece.work, seconds, origin, time.time())


def this_machine(*more: object) -> str:
    """What tells this machine's rates from others': processor and cores, and whatever else decides them."""
    return digest([cpu_model(), num_cores(), *map(str, more)])[:16]


def _rate(seen: Sequence[Seen], work: float) -> float:
    """Seconds per work: the median of the pieces that are nearest in size, the later ones of equal size."""
    near = sorted(seen, key=lambda s: (round(abs(math.log(s.work / work)), 1), -s.when))[:NEAREST]
    return statistics.median(s.seconds / s.work for s in near)


def _kept(seen: Sequence[Seen]) -> list[Seen]:
    """The latest ones, of each kind and of all."""
    counts: dict[tuple[str, ...], int] = {}
    kept = []
    for each in sorted(seen, key=lambda s: -s.when):
        alike = (each.kind, each.setting, each.like, each.origin)
        counts[alike] = counts.get(alike, 0) + 1
        if counts[alike] <= MOST_ALIKE:
            kept.append(each)
    return kept[:MOST][::-1]


def _entry() -> Entry:
    return Entry(cache_dir() / "rates", "seen", "what earlier work took", VERSION)


def _parsed(opened: Opened) -> list[Seen]:
    """What an entry holds; raises ValueError for anything else."""
    if not isinstance(opened.facts, list):
        raise ValueError
    return [_checked(Seen(**each)) for each in opened.facts]


def _checked(seen: Seen) -> Seen:
    texts: tuple[Any, ...] = (seen.kind, seen.setting, seen.like)
    if not all(isinstance(t, str) for t in texts) or seen.origin not in ("run", "plan"):
        raise ValueError
    if not (0 < float(seen.work) < math.inf and 0 < float(seen.seconds) < math.inf and float(seen.when) >= 0):
        raise ValueError
    return seen
