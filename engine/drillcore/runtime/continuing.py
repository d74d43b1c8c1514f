"""What a dataset expects after its sentences, as tokens: refused in preflight, or left out, where it cannot follow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from drillcore.job.choices import shortened
from drillcore.job.inputs import Dataset
from drillcore.texts.problems import Problems
from drillcore.texts.rows import RowTable
from drillcore.tokens.continuations import Continuations, Fault, continue_rows
from drillcore.tokens.sequences import Sequences
from drillcore.tokens.tokenizer import BATCH, Around, Tokenizer

# Sentences after which candidates are compared with each other.
COMPARED = 64
SHORT = {
    Fault.CROSSES: "with a token across the border to the sentence",
    Fault.APPENDED: "after a special token that ends the sentence",
    Fault.UNKNOWN: "not in the vocabulary",
    Fault.NOTHING: "without a token",
    Fault.TRUNCATED: "after a truncated sentence",
}


def around_of(dataset: Dataset) -> Around:
    """What the job writes around each sentence of a dataset."""
    if dataset.messages is not None:
        arguments = {"add_generation_prompt": dataset.add_generation_prompt, **dataset.chat}
        return Around("messages", tuple(sorted(arguments.items())))
    return Around(dataset.around, tuple(sorted(dataset.chat.items())))


def continuations_of(
    rows: RowTable, tokenizer: Tokenizer, dataset: Dataset, whole: Sequences, tokens: Sequences
) -> tuple[Continuations | None, Continuations | None]:
    """Tokens of the expected next text and of the candidates after each sentence; None where the dataset names none.

    whole, tokens: the sentences before and after truncation.
    """
    around, truncated_N = around_of(dataset), whole.lengths_N > tokens.lengths_N
    found: list[Continuations | None] = []
    for wanted, texts in ((dataset.expected_next is not None, None), (bool(dataset.candidates), dataset.candidates)):
        made = continue_rows(rows, tokenizer, around, whole, texts) if wanted and rows.num_rows else None
        found.append(made.without(truncated_N) if made is not None and truncated_N.any() else made)
    return found[0], found[1]


@dataclass(frozen=True)
class Following:
    """The continuations of one model and dataset, in words.

    model: its group. which: "expected" or "candidates".
    """

    model: str
    rows: RowTable
    dataset: Dataset
    tokenizer: Tokenizer
    which: str
    found: Continuations

    def refuse(self, file: str, problems: Problems) -> None:
        """Name every continuation that cannot follow its sentence, unless the job leaves them out."""
        if self.dataset.cannot_follow == "skip":
            return
        shown = problems.limit - len(problems.shown)
        for number, (n, c, fault) in enumerate(self.found.faulty()):
            # Only what is shown is put into words.
            message = self._explain(n, c, fault) if number < shown else ""
            problems.add(file, None, message)

    def _explain(self, n: int, c: int, fault: Fault) -> str:
        text, after = self.rows.texts(n, n + 1)[0], self._text(n, c)
        blank = " (the sentence ends in a blank: move it to the text that follows)" if text[-1:].isspace() else ""
        reason = {
            Fault.CROSSES: "encoded together with the sentence it gives other tokens, one of which crosses the border"
            + blank,
            Fault.APPENDED: f"the tokenizer ends each sentence with {self._appended()}, which nothing follows "
            "(extract.special_tokens: none leaves all special tokens out)",
            Fault.UNKNOWN: "it holds text that is not in the vocabulary",
            Fault.NOTHING: "the tokenizer makes no token of it there",
            Fault.TRUNCATED: "the sentence is truncated, so that its own text follows",
        }[fault]
        what = "expected_next" if self.which == "expected" else "the candidate"
        return (
            f"sentence {n} ({shortened(text)}), {what} {after!r}, {self.model}: {reason}; "
            "`cannot_follow: skip` of the dataset leaves out such values"
        )

    def _appended(self) -> str:
        return " ".join(self.tokenizer.pieces(self.tokenizer.added[1]))

    def _text(self, n: int, c: int) -> str:
        if self.which == "expected":
            return str(self.rows.slice(n, n + 1).column("expected_next")[0].as_py())
        return self.dataset.candidates[c]

    def notes(self) -> Iterator[str]:
        """What a reader of the values must know."""
        place = f"{self.model}/{self.dataset.name}"
        what = "expected texts" if self.which == "expected" else "candidates"
        counts = self.found.left_out()
        if counts:
            why = ", ".join(f"{count:,} {SHORT[Fault[name.upper()]]}" for name, count in counts.items())
            n, c, _ = next(self.found.faulty())
            every = int((self.found.faults_NC != Fault.ABSENT).sum())
            example = f"the first is {self._text(n, c)!r} after sentence {n}"
            yield f"{place}: {sum(counts.values()):,} of {every:,} {what} are left out: {why}; {example}"
        yield from (f"{place}: {note}" for note in (self._several() if self.which == "expected" else self._equal()))

    def _several(self) -> Iterator[str]:
        """Expected texts of several tokens, and those that begin with the same one."""
        several_N = (self.found.ids.lengths_N > 1) & (self.found.faults_NC[:, 0] == 0)
        if not several_N.any():
            return
        first_N = self.found.first_tokens()
        by_token: dict[int, dict[str, None]] = {}
        for start in range(0, self.rows.num_rows, BATCH):
            stop = min(start + BATCH, self.rows.num_rows)
            for n, text in enumerate(self.rows.slice(start, stop).column("expected_next").to_pylist(), start):
                if first_N[n] >= 0:
                    by_token.setdefault(int(first_N[n]), {})[str(text)] = None
        n = int(np.flatnonzero(several_N)[0])
        piece = self.tokenizer.pieces([int(first_N[n])])[0]
        yield (
            f"{int(several_N.sum()):,} expected texts are several tokens, of which next_token measures the first: "
            f"{self._text(n, 0)!r} counts as {piece!r} (candidates measure all of them)"
        )
        for token, texts in by_token.items():
            if len(texts) > 1:
                named, piece = list(texts), self.tokenizer.pieces([token])[0]
                both = f"the expected texts {named[0]!r} and {named[1]!r} both begin with {piece!r}"
                yield f"{both}: next_token cannot tell them apart"
                return

    def _equal(self) -> Iterator[str]:
        """Candidates that are the same tokens."""
        for n in range(min(COMPARED, len(self.found.faults_NC))):
            ids = self.found.of(n)
            for a, b in combinations(range(len(ids)), 2):
                if ids[a] is not None and ids[a] == ids[b]:
                    one, other = self.dataset.candidates[a], self.dataset.candidates[b]
                    yield f"the candidates {one!r} and {other!r} are the same tokens to this tokenizer"
                    return
