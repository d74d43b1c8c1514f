"""What the transformers backend needs before it is loaded: its packages. Imports nothing heavy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drillcore.errors import MissingExtraError
from drillcore.system.versions import installed_versions

if TYPE_CHECKING:
    from drillcore.backends.source import ModelSource
    from drillcore.job.fields import Extract

DISTRIBUTIONS = ("transformers", "torch")


def check(source: ModelSource | None, extract: Extract) -> None:
    """Raise MissingExtraError where a package is not installed; every model and setting is taken."""
    missing = [name for name in DISTRIBUTIONS if name not in versions()]
    if missing:
        raise MissingExtraError(
            f"backend transformers needs {missing[0]}, which is not installed",
            hint="pip install 'drillcore[transformers]'",
        )


def versions() -> dict[str, str]:
    """Installed distributions that decide bytes and speed."""
    return installed_versions(DISTRIBUTIONS)
