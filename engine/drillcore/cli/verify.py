"""`drillcore verify`: what the checks of a store find, as lines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from drillcore.api.verify import Checked, Found, check

# Findings of a part of the store that are printed.
SHOWN = 100


def verify_lines(
    address: str, out: Path | None = None, recompute: int | None = None, *, models: bool = False
) -> Iterator[str]:
    """Verify a store; yields lines that name what is damaged, as it is found. The arguments are those of `verify`.

    Raises DamageError at the end where something is damaged, and what `verify` does.
    """
    steps, count = check(address, out, recompute, models=models), 0
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            verified = end.value
            break
        if isinstance(step, Checked):
            if step.num_findings > SHOWN:
                yield f"{step.part}: ... and {step.num_findings - SHOWN:,} more"
            if not step.num_findings:
                yield f"{step.part}: whole"
            count = 0
        elif isinstance(step, Found):
            count += bool(step.part)
            if count <= SHOWN:
                yield str(step.finding)
        else:
            yield step
    verified.check()
    yield repr(verified)
