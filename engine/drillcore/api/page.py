"""HTML of results for notebooks: tables, with every text escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from drillcore.system.visible import visible


def table(title: str, header: Sequence[str], rows: Iterable[Sequence[object]], below: Sequence[str] = ()) -> str:
    """A table with a title, and lines below it.

    >>> table("A <b>", (), [("x", 1)], ["end"])
    '<div><b>A &lt;b&gt;</b><table><tbody><tr><td>x</td><td>1</td></tr></tbody></table>end</div>'
    """
    head = f"<thead><tr>{''.join(f'<th>{_text(cell)}</th>' for cell in header)}</tr></thead>" if header else ""
    body = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in rows)
    lines = "<br>".join(map(_text, below))
    return f"<div><b>{_text(title)}</b><table>{head}<tbody>{body}</tbody></table>{lines}</div>"


def _text(value: object) -> str:
    return escape(visible(str(value)))
