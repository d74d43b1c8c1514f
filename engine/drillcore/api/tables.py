"""Rows of results as a pandas table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from drillcore.errors import MissingExtraError

if TYPE_CHECKING:
    import pandas as pd


def frame(rows: Iterable[Any], columns: Sequence[str]) -> pd.DataFrame:
    """A table with a column for each attribute of the rows; raises MissingExtraError where pandas is not installed.

    >>> frame([complex(1, 2)], ["real", "imag"]).values.tolist()
    [[1.0, 2.0]]
    """
    try:
        import pandas as pd
    except ImportError:
        raise MissingExtraError(
            "to_pandas needs pandas, which is not installed", hint="pip install 'drillcore[pictures]'"
        ) from None
    return pd.DataFrame([[getattr(row, name) for name in columns] for row in rows], columns=list(columns))
