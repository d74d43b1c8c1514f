"""Where a sentence's own text stands in what is encoded: a template writes more around it, and may trim it."""

from __future__ import annotations

from dataclasses import dataclass

from drillcore.errors import JobError
from drillcore.tokens.tokenizer import Around, Tokenizer

# Nothing that a template would trim, escape or write itself.
STANDS_FOR_TEXT = "\ue010a\ue011"


@dataclass(frozen=True)
class Within:
    """What is written before and after every sentence of a dataset.

    >>> Within("Is it true? ", " Answer:").place(" Yes. ", "Is it true? Yes. Answer:")
    (11, 12, 16)
    """

    before: str = ""
    after: str = ""

    @staticmethod
    def of(tokenizer: Tokenizer, around: Around) -> Within:
        """As `around` writes it; raises JobError for a chat template that writes a text more than once, or not at all.

        One that decides by the text itself what to write is found out by `place`.
        """
        before, *after = tokenizer.render(STANDS_FOR_TEXT, around).split(STANDS_FOR_TEXT)
        if len(after) != 1:
            raise JobError(
                f"template: chat: the tokenizer's chat template writes a text {len(after)} times",
                hint="Positions by character cannot be told with it; `last` works.",
            )
        return Within(before, after[0])

    def place(self, text: str, rendered: str) -> tuple[int, int, int] | None:
        """Where the text's first character would stand in what is rendered, and its first and the one after its last.

        They differ where spaces around the text are trimmed. None where anything else is written around it, or instead.
        """
        first, stop = len(self.before), len(rendered) - len(self.after)
        if not (first <= stop and rendered.startswith(self.before) and rendered.endswith(self.after)):
            return None
        written = rendered[first:stop]
        if written != text and written not in (text.strip(), text.lstrip(), text.rstrip()):
            return None
        lead = len(text) - len(text.lstrip()) - (len(written) - len(written.lstrip()))
        return first - lead, first, stop
