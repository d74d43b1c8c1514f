"""A stage that fails on one group leaves the others done: what failed is gathered, and said at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from drillcore.errors import CommitError, DrillcoreError, RunError
from drillcore.store.group import GroupWriter
from drillcore.system.progress import counted


class PartFailed(RunError):
    """Some groups of a stage failed; the others are done, and later stages may go on with them."""


class Failures:
    """What failed in one stage, group by group.

    >>> failures = Failures("measure")
    >>> for group, sentences in (("m/a", 3), ("m/b", 0)):
    ...     with failures.of(group):
    ...         _ = 1 / sentences
    >>> failures.raise_if_any()
    Traceback (most recent call last):
    drillcore.runtime.failures.PartFailed: measure failed for 1 group, everything else is kept:
    m/b: unexpected ZeroDivisionError: division by zero
    This is a bug in drillcore: run again with --debug and report the output.
    """

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._errors: dict[str, Exception] = {}

    @contextmanager
    def of(self, group: str) -> Iterator[None]:
        """Keep the error of a group; CommitError is raised, since the place fails them all."""
        try:
            yield
        except CommitError:
            raise
        except Exception as error:
            self._errors[group] = error

    def raise_if_any(self) -> None:
        """Raise PartFailed that names every group that failed, with its reason."""
        if not self._errors:
            return
        lines = [f"{group}: {_words(error)}" for group, error in self._errors.items()]
        hints = [e.hint if isinstance(e, DrillcoreError) else BUG for e in self._errors.values()]
        first = next((e for e in self._errors.values() if not isinstance(e, DrillcoreError)), None)
        raise PartFailed(
            f"{self._stage} failed for {counted(len(lines), 'groups')}, everything else is kept:\n" + "\n".join(lines),
            hint=" ".join(dict.fromkeys(h for h in hints if h)),
        ) from first


def is_whole(writer: GroupWriter) -> bool:
    """Whether all states of a group are extracted, and its coordinates written."""
    return "hidden_states" in writer.group and "" not in writer.fingerprints() and bool(writer.columns_made_from())


def check_whole(writer: GroupWriter) -> None:
    """Raise RunError where states or coordinates of a group are missing: a stage would read NaN, or other labels."""
    if not is_whole(writer):
        fingerprints = writer.fingerprints() if "hidden_states" in writer.group else []
        missing = f"{fingerprints.count('')} of {len(fingerprints)} shards are" if fingerprints else "its states are"
        if fingerprints and "" not in fingerprints:
            missing = "its texts and labels are"
        raise RunError(f"{missing} not extracted yet", hint="Run `drillcore extract` first.")


BUG = "This is a bug in drillcore: run again with --debug and report the output."


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, DrillcoreError) else f"unexpected {type(error).__name__}: {error}"
