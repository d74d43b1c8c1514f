"""A model of how a shard is committed, small enough to be searched through completely.

A shard is four files: states, maxima, record and fingerprint. A version of the inputs stands for the content that
belongs to it. A run is a sequence of writes; it may be killed before any of them, the inputs may change and change
back, and a file may be lost. Every state that can be reached in this way is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations

INPUTS = ("A", "B")
FILES = ("states", "maxima", "record", "fingerprint")


@dataclass(frozen=True)
class Shard:
    """The files of a shard: the inputs that each was made from, empty where it is missing or retracted.

    record: those of the inputs that it names, and of the states and maxima whose digests it holds. fingerprint: the
    inputs, or the whole record where it is a digest of the record. planned: the inputs of the last run.
    """

    states: str = ""
    maxima: str = ""
    record: str = ""
    fingerprint: str = ""
    planned: str = ""


@dataclass(frozen=True)
class Protocol:
    """How a run commits.

    order: its writes. retracts: whether a fingerprint is retracted always before new data, or only where the states are
    there too. by_record: whether readers check data against a record, whose digest the fingerprint is.
    """

    order: tuple[str, ...]
    retracts: str
    by_record: bool

    def stands(self, shard: Shard) -> str:
        """The inputs that a run believes are committed: it looks at the small files, and whether the states exist."""
        belongs = shard.maxima == shard.record == shard.fingerprint or not self.by_record
        return shard.fingerprint if shard.states and belongs else ""

    def run(self, shard: Shard, inputs: str) -> Iterator[tuple[str, Shard]]:
        """The writes of a run, each with the shard after it."""
        stands = self.stands(shard)
        shard = replace(shard, planned=inputs)
        yield "plan", shard
        if stands == inputs:
            return
        for write in self.order:
            if write != "retract":
                shard = replace(shard, **{write: inputs})
            elif shard.fingerprint and (stands or self.retracts == "always"):
                shard = replace(shard, fingerprint="")
            else:
                continue
            yield write, shard

    def accepts(self, shard: Shard) -> bool:
        """Whether a reader takes the states for those of the fingerprint."""
        if not shard.fingerprint or not shard.states:
            return False
        belongs = shard.states == shard.maxima == shard.record == shard.fingerprint
        return belongs if self.by_record else True


FORMER = Protocol(("retract", "states", "maxima", "fingerprint"), "where the states are there", by_record=False)
PRESENT = Protocol(("retract", "states", "maxima", "record", "fingerprint"), "always", by_record=True)


def wrong_end(protocol: Protocol) -> list[str] | None:
    """A shortest sequence of events that ends in wrong states, said to be right; None where there is none.

    Wrong is a run that ends with other states than those of its inputs, and states that a reader accepts although they
    are not those of the fingerprint.
    """
    reached: dict[Shard, list[str]] = {Shard(): []}
    waiting = [Shard()]
    while waiting:
        shard = waiting.pop(0)
        for event, after, ended in _events(protocol, shard):
            path = [*reached[shard], event]
            if ended and not (after.states == after.maxima == ended and protocol.accepts(after)):
                return [*path, f"ended 0 with states of {after.states or 'nothing'}"]
            if protocol.accepts(after) and after.states != after.fingerprint:
                return [*path, f"states of {after.states} are read as those of {after.fingerprint}"]
            if after not in reached:
                reached[after] = path
                waiting.append(after)
    return None


def _events(protocol: Protocol, shard: Shard) -> Iterator[tuple[str, Shard, str]]:
    """What may happen to a shard: event, shard afterwards, and the inputs of a run that came to its end."""
    for inputs in INPUTS:
        after, steps = shard, list(protocol.run(shard, inputs))
        for name, after in steps:
            yield f"run with {inputs}, killed after: {name}", after, ""
        yield f"run with {inputs}", after, inputs
    for file in FILES:
        if getattr(shard, file):
            yield f"lost: {file}", replace(shard, **{file: ""}), ""


def orders(by_record: bool, retracts: str) -> Iterator[Protocol]:
    """Every order of the writes."""
    writes: Sequence[str] = ("retract", "states", "maxima", *(["record"] if by_record else []), "fingerprint")
    for order in permutations(writes):
        yield Protocol(order, retracts, by_record)
