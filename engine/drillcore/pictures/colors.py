"""Colours of labels: told apart by everybody where there are few, as far apart as can be where there are many."""

from __future__ import annotations

from collections.abc import Sequence

import colorcet

# Okabe and Ito's palette (2008), but for its yellow and black, which a white panel or thin points swallow.
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
FIXED = {"Toronto": "#D55E00", "Montreal": "#0072B2"}
NO_LABEL = "#555555"
MOST = 100


def assign(categories: Sequence[str]) -> dict[str, str]:
    """A colour for each label, the same for the same labels; beyond 100 labels colours repeat."""
    if list(categories) == ["no label"]:
        return {"no label": NO_LABEL}
    few = [c for c in OKABE_ITO if c not in {FIXED[k] for k in categories if k in FIXED}]
    rest = [c for c in categories if c not in FIXED]
    palette = few if len(rest) <= len(few) else [*colorcet.glasbey_dark][:MOST]
    return {
        **{c: FIXED[c] for c in categories if c in FIXED},
        **{c: palette[i % len(palette)] for i, c in enumerate(rest)},
    }
