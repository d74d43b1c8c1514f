"""The page docs/models.md: which architectures run, how, and why the others do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tools.architectures.trial import BOUND, LENGTHS, Outcome

HOW = {
    "packed": "packed: shared prefixes are computed once",
    "padded": "padded batches",
    "equal": "batches of equal length",
    "refused": "refused, with the reason below",
    "wrong": "wrong",
    "traceback": "ended in a traceback",
    "not tried": "not tried: no tiny model could be made",
}
INTRO = """# Which models run

Made with {versions}; `make support-table` writes this page.

For every architecture that `transformers` registers for causal language models, and for the text of every one for
images and text, a tiny model with random weights (4 layers, width 64, windows and chunks of 16 tokens) is saved, loaded
and checked as in a job. Then every layer of {num} sentences of 1 to {longest} tokens, half of which share a beginning,
is compared with the same model on each sentence alone, in float32. `wrong` is an error above {bound:g}.

A real model is checked again at every load, on the sentences of the job. What does not run is refused with a reason
before anything is written. Architectures that keep code of their own beside their weights (`trust_remote_code`) are not
listed; the same search for decoder, layers and final norm and the same checks hold for them.

- *error*: the worst relative error ‖a − b‖₂ / ‖b‖₂ of any layer and sentence.
- *layers*: `all`, or `hf` where the states before the final norm cannot be compared with transformers.
- *predicts*: whether final norm and head give the model's own logits, so that token prediction is offered.
"""


def page(causal: Sequence[Outcome], with_images: Sequence[Outcome], versions: str) -> str:
    """The whole page as Markdown."""
    intro = INTRO.format(versions=versions, num=2 * len(LENGTHS), longest=max(LENGTHS), bound=BOUND)
    parts = [intro, *_section("Causal language models", causal)]
    parts += _section("Image-text models, text only", with_images)
    return "\n".join(parts)


def counts(outcomes: Sequence[Outcome]) -> str:
    """How many architectures had which status, in one line."""
    found = Counter(o.status for o in outcomes)
    running = sum(n for status, n in found.items() if status in ("packed", "padded", "equal"))
    each = ", ".join(f"{found[s]} {s}" for s in HOW if found[s])
    return f"{running} of {len(outcomes)} run ({each})"


def _section(title: str, outcomes: Sequence[Outcome]) -> list[str]:
    ran = [o for o in outcomes if o.status in ("packed", "padded", "equal", "wrong")]
    others = [o for o in outcomes if o not in ran]
    worst = max((o.error for o in ran), default=0.0)
    lines = [f"## {title}", "", f"{counts(outcomes)}; worst error {worst:.1e}.", ""]
    lines += ["| architecture | layout | error | layers | predicts |", "| --- | --- | --- | --- | --- |"]
    for one in ran:
        predicts = "yes" if one.prediction else "no"
        lines.append(f"| {one.kind} | {one.status} | {one.error:.1e} | {one.layers} | {predicts} |")
    lines += ["", f"### {title}: not supported", "", "| architecture | what the product says |", "| --- | --- |"]
    lines += [f"| {o.kind} | {_cell(o)} |" for o in others]
    return [*lines, ""]


def _cell(outcome: Outcome) -> str:
    reason = " ".join(outcome.reason.split()).replace("|", "\\|")
    return reason if outcome.status == "refused" else f"**{outcome.status}**: {reason[-300:]}"
