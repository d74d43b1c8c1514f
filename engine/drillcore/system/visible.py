"""Text without control characters, for terminals and logs: names, texts and messages come from files."""

from __future__ import annotations

import re

# C0, C1, what turns the direction of writing, line separators, interlinear marks, halves of surrogate pairs.
UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb\ud800-\udfff]"
)


def visible(text: str) -> str:
    r"""A text with each character that could move the cursor, colour, hide or turn around what follows as an escape.

    Line feeds and tabs stay, and so do letters and emoji of any language.

    >>> print(visible("red \x1b[31m, \u202e, Привет 안녕 👩‍🔬"))
    red \x1b[31m, \u202e, Привет 안녕 👩‍🔬
    """
    return UNSAFE.sub(lambda found: ascii(found[0])[1:-1], text)
