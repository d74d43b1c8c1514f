"""Makes positions.png: a text, a conversation, and the tokens that each position takes, as the demo model has them.

    python docs/pictures/positions.py

Runs `drillcore.extract` on the demo model, twice, and draws what its coordinates say.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from make import HERE, keep
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import drillcore

MODEL = "demo/smollm2-135m-instruct"
TEXT = "Ada Lovelace moved to Zürich in 1843. True? Answer:"
MESSAGES = [
    {"role": "user", "content": "How was the hotel?"},
    {"role": "assistant", "content": "Quiet and clean."},
]
INK, LINE, TAKEN, POOLED = "#222222", "#bbbbbb", "#D55E00", "#56B4E9"


def main() -> None:
    """Run, draw, keep."""
    start = TEXT.index("Zürich")
    of_text = drillcore.extract(
        MODEL,
        [TEXT],
        positions=[
            "last",
            {"last": 4},
            {"mean": {"skip_first": 1}},
            {"span": ["from", "to"], "name": "who"},
            {"span": ["from", "to"], "name": "whole", "pool": "mean"},
            {"after": "True?", "name": "after"},
            "all",
        ],
        fields={"from": [start], "to": [start + len("Zürich")]},
        layers=[0],
    )
    turns = _conversation(["content_last", "end_of_turn", "generation_prompt", "mean"])
    figure = Figure(figsize=(14, 6.4), dpi=110)
    above, below = figure.subplots(2, 1, gridspec_kw={"height_ratios": [8, 6]})
    names = {
        "last": "last",
        "last-4": "{last: 4}",
        "mean": "{mean: {skip_first: 1}}",
        "who": "{span: [from, to]}",
        "whole": "{span: [from, to], pool: mean}",
        "after": '{after: "True?"}',
        "all": "all",
    }
    every = of_text["all"].to_dataset()
    pieces = _pieces(TEXT, every)
    rows = [(said, *_taken(of_text[name].to_dataset(), len(pieces), every)) for name, said in names.items()]
    _draw(above, pieces, rows)
    _draw(below, *turns)
    below.text(0, -5.3, "orange: a row each", color=TAKEN, fontsize=9)
    below.text(9, -5.3, "blue: one row, their mean", color="#2b8cc4", fontsize=9)
    figure.tight_layout()
    path = HERE / "positions.png"
    figure.savefig(path)
    keep(path, path.name)


def _conversation(places: list[str]) -> tuple[list[str], list[tuple[str, set[int], bool]]]:
    """The tokens of a conversation, and those that turns take."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "chat.jsonl").write_text(json.dumps({"messages": MESSAGES}), encoding="utf-8")
        positions: list[Any] = [{"turns": {"at": at, "role": "assistant"}, "name": at} for at in places]
        job = {
            "models": [{"id": MODEL, "as": "m"}],
            "datasets": [{"name": "chat", "path": "chat.jsonl", "messages": "messages"}],
            "extract": {"positions": ["last", *positions, "all"], "layers": [0]},
        }
        (Path(folder) / "job.yaml").write_text(json.dumps(job), encoding="utf-8")
        tree = drillcore.open(drillcore.run(Path(folder) / "job.yaml"))["m"]
        every = tree["chat~all"].to_dataset()
        pieces = _pieces(str(every.rendered.values[0]), every)
        rows = []
        for at in places:
            group = tree[f"chat~{at}"].to_dataset()
            rows.append((f"{{turns: {{at: {at}, role: assistant}}}}", *_taken(group, len(pieces), every)))
        # The template's own system message is left out of the picture.
        first = [number for number, piece in enumerate(pieces) if piece == "<|im_start|>"][1]
        return pieces[first:], [(said, {t - first for t in tokens}, pooled) for said, tokens, pooled in rows]


def _pieces(text: str, every: Any) -> list[str]:
    """Each token as the text has it."""
    pairs = zip(every.char_start.values, every.char_end.values, strict=True)
    return [text[a:b].replace("\n", "\\n") for a, b in pairs]


def _taken(group: Any, count: int, every: Any) -> tuple[set[int], bool]:
    """The tokens whose states are rows of a group, and whether a row is their mean."""
    if "n_pooled" not in group:
        token = group["token"] if "token" in group else np.array([count - 1])
        return {int(t) for t in np.ravel(token)}, False
    if "char_start" in group:
        first, stop = int(np.ravel(group["char_start"])[0]), int(np.ravel(group["char_end"])[0])
        over = (every.char_start.values < stop) & (every.char_end.values > first)
        return {int(token) for token in np.flatnonzero(over)}, True
    pooled = int(np.ravel(group["n_pooled"])[0])
    return set(range(count - pooled, count)), True


def _draw(ax: Axes, pieces: list[str], rows: list[tuple[str, set[int], bool]]) -> None:
    """One box a token, and a line a position."""
    widths = [0.55 + 0.34 * len(piece) for piece in pieces]
    left = np.concatenate([[0], np.cumsum(widths)])
    for x, width, piece in zip(left, widths, pieces, strict=False):
        ax.add_patch(_box(x, 0, width, "white"))
        ax.text(x + width / 2, 0.5, piece, ha="center", va="center", family="monospace", fontsize=8, color=INK)
    for number, (said, tokens, pooled) in enumerate(rows, 1):
        ax.text(-0.4, -number + 0.5, said, ha="right", va="center", family="monospace", fontsize=8, color=INK)
        for token in tokens:
            ax.add_patch(_box(left[token], -number, widths[token], POOLED if pooled else TAKEN, 0.25))
    ax.set_xlim(-16, 46)
    ax.set_ylim(-len(rows) - 1.5, 1.3)
    ax.axis("off")


def _box(x: float, y: float, width: float, color: str, inset: float = 0.08) -> Any:
    from matplotlib.patches import Rectangle

    edge = LINE if color == "white" else color
    return Rectangle((x + 0.06, y + inset), width - 0.12, 1 - 2 * inset, facecolor=color, edgecolor=edge)


if __name__ == "__main__":
    main()
