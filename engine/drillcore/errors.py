"""The tree of errors: each says what happened, where, and what to do, and has an exit status.

Exit status 2: the job or its inputs are wrong, and nothing was written. 1: the run failed, and what was committed is
kept. 130: the run was interrupted, and what was committed is kept.
"""

from __future__ import annotations


class DrillcoreError(Exception):
    """Any error that a user can act on.

    hint: what to do, in one sentence; the command prints it after the message, and so do tracebacks, as a note.
    exit_status: of the command.

    >>> error = JobError("job.yaml, line 3: there is no field modles", hint="Did you mean models?")
    >>> str(error), error.hint, error.exit_status
    ('job.yaml, line 3: there is no field modles', 'Did you mean models?', 2)
    """

    exit_status = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        if hint:
            self.add_note(hint)

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process boundaries (Ray, worker pools): keep the hint, which Exception would drop.
        return (_rebuild, (type(self), str(self), self.hint))


def _rebuild(kind: type[DrillcoreError], message: str, hint: str) -> DrillcoreError:
    return kind(message, hint=hint)


class InputError(DrillcoreError):
    """The job or one of its inputs is wrong; nothing was written."""

    exit_status = 2


class JobError(InputError):
    """The job file is wrong."""


class TextError(InputError):
    """A dataset's file or rows are wrong."""


class ModelError(InputError):
    """A model is unknown, cannot be reached, or is not a causal decoder."""


class StoreError(InputError):
    """There is no drillcore store, or it belongs to another job, or another run holds it."""


class MissingExtraError(InputError):
    """A feature needs a package that is not installed."""


class RunError(DrillcoreError):
    """The run failed; what was committed is kept."""


class WeightsChangedError(RunError):
    """The files of a model's weights changed while they were read."""


class NumericsError(RunError):
    """A hidden state is not finite, or does not fit the store's dtype."""


class SelfCheckError(RunError):
    """The hidden states disagree with `transformers` run one sentence at a time."""


class ModelChangedError(RunError):
    """A model gives other states than those of it that the store holds."""


class CommitError(RunError):
    """The store could not be written."""


class DamageError(RunError):
    """Stored bytes are damaged."""


class InterruptedRun(DrillcoreError):
    """The user or the system asked the run to stop."""

    exit_status = 130
