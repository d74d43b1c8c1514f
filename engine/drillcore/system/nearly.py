"""Words that are nearly the same: case, blanks, and characters that are not seen or have several forms."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache

# Not seen, though Unicode counts them among letters, marks or symbols.
UNSEEN = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0") | frozenset(
    map(chr, range(0xFE00, 0xFE10))
)
# A number of so few digits that float64 tells it from any other.
NUMBER = re.compile(r"[+-]?(?=[0-9.]{1,15}$)[0-9]+(\.[0-9]*)?")
LOOK_ALIKE = str.maketrans("‘’‛`´“”„‟‐‑‒–—―−", "'''''\"\"\"\"-------")


@lru_cache(maxsize=65_536)
def fold(text: str) -> str:
    """The text without its case, outer and repeated blanks, unseen characters, and kinds of quotes and dashes.

    >>> fold(" New\\u00a0York\\u200b") == fold("new york"), fold("Cafe\\u0301") == fold("café")
    (True, True)
    """
    seen = "".join(c for c in text.translate(LOOK_ALIKE) if not is_unseen(c))
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", seen).casefold()).split())


def is_unseen(character: str) -> bool:
    """Whether a character takes no ink and is no blank, such as a zero-width space."""
    return character in UNSEEN or (unicodedata.category(character) in ("Cf", "Cc") and not character.isspace())


@lru_cache(maxsize=4096)
def looks_like(name: str, wanted: str) -> bool:
    """Whether a name is another one but for what `fold` leaves out, quotes around it, or a plural's s.

    >>> looks_like('"Label "', "label"), looks_like("labels", "label"), looks_like("table", "label")
    (True, True, False)
    """
    bare = fold(fold(name).strip("\"'"))
    return name != wanted and bare in (fold(wanted), fold(wanted) + "s")


def near_groups(texts: Iterable[str]) -> list[list[str]]:
    """Groups of distinct texts that are one number or that `fold` makes the same, in the order of their first texts.

    >>> near_groups(["b", "a ", "A", "a", "1", "1.0"])
    [['1', '1.0'], ['A', 'a', 'a ']]
    """
    groups: dict[str | float, set[str]] = defaultdict(set)
    for text in texts:
        folded = fold(text)
        groups[float(folded) if NUMBER.fullmatch(folded) else folded].add(text)
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)


def shown(text: str, longest: int = 40) -> str:
    """A text in back quotes, short and with what is not seen or could be another form written as an escape.

    >>> print(shown("a\\u200b "), shown("e\\u0301"), shown("é"))
    `a\\u200b ` `e\\u0301` `é`
    """
    short = text if len(text) <= longest else f"{text[: longest // 2]}...{text[-longest // 2 :]}"
    marked = (c if c.isprintable() and not unicodedata.combining(c) and not is_unseen(c) else _escape(c) for c in short)
    return f"`{''.join(marked)}`"


def _escape(character: str) -> str:
    return ascii(character)[1:-1]
