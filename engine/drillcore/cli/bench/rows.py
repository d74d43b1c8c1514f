"""The cases of `drillcore bench`, what they have in common, and the rows made of their samples. Nothing heavy."""

from __future__ import annotations

import itertools
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

# Numbers of a sample that rows are made of.
NUMBERS = (
    *("repeat", "num_sentences", "num_tokens", "num_nodes", "num_padding", "wall_seconds", "tokenize_seconds", "flops"),
    *("matrix_flops_per_second", "peak_host_bytes", "peak_device_bytes", "load_seconds", "warm_seconds"),
)


@dataclass(frozen=True)
class BenchCase:
    """One combination. batch_tokens: nodes of a forward pass, or `auto`; random_weights: no weights are read."""

    model: str
    backend: str = "transformers"
    dtype: str = "auto"
    batch_tokens: int | str = "auto"
    random_weights: bool = False

    @property
    def name(self) -> str:
        """For people."""
        weights = ", random weights" if self.random_weights else ""
        return f"{self.model}, {self.backend}, {self.dtype}, batch {self.batch_tokens}{weights}"


@dataclass(frozen=True)
class BenchSettings:
    """What all cases have in common.

    texts: file of sentences (`text_field` of each row), or None for `lengths`, such as `uniform:8-64` tokens.
    num_sentences: at most so many of the file, or how many random ones (1,024). base: folder that relative models start
    from. scratch: folder for the stores that are written and removed again, on the disk to be measured.
    """

    texts: Path | None = None
    lengths: str | None = None
    text_field: str = "text"
    num_sentences: int | None = None
    layers: str | tuple[int, ...] = "all"
    device: str = "auto"
    threads: int | str = "auto"
    repeats: int = 3
    base: Path = field(default_factory=Path.cwd)
    scratch: Path = field(default_factory=lambda: Path(tempfile.gettempdir()))


@dataclass(frozen=True)
class BenchRow:
    """Medians of a case's samples; rates of the whole job, from the first token id to the last commit.

    matrix_share: model operations (two a parameter and useful node) over the machine's measured matrix products;
    stage_shares: seconds of a step over the wall's (they overlap), `tokenize` beside the job. error: why there is none.
    """

    case: BenchCase
    num_samples: int = 0
    num_sentences: int = 0
    num_tokens: int = 0
    num_nodes: int = 0
    num_padding: int = 0
    sentences_per_second: float = 0.0
    tokens_per_second: float = 0.0
    nodes_per_second: float = 0.0
    matrix_share: float = 0.0
    stage_shares: dict[str, float] = field(default_factory=dict)
    peak_host_bytes: int = 0
    peak_device_bytes: int = 0
    load_seconds: float = 0.0
    warm_seconds: float = 0.0
    error: str = ""


def make_cases(
    models: Sequence[str],
    backends: Sequence[str] = ("transformers",),
    dtypes: Sequence[str] = ("auto",),
    batch_tokens: Sequence[int | str] = ("auto",),
    random_weights: bool = False,
) -> list[BenchCase]:
    """Every combination, without repeats, models outermost."""
    combined = itertools.product(models, backends, dtypes, batch_tokens)
    return list(dict.fromkeys(BenchCase(*parts, random_weights) for parts in combined))


def rows_of(
    cases: Sequence[BenchCase], samples: Sequence[dict[str, Any]], failed: dict[BenchCase, str]
) -> list[BenchRow]:
    """The row of every case, from its samples (those of other cases are passed over)."""
    rows = []
    for case in cases:
        own = [s for s in samples if s["case"] == asdict(case)]
        error = failed.get(case, "" if own else "not measured yet")
        rows.append(_row(case, own, error) if own else BenchRow(case, error=error))
    return rows


def are_samples(value: object) -> TypeGuard[list[dict[str, Any]]]:
    """Whether a value is a list of samples, as a results file holds them.

    >>> are_samples([]), are_samples([{"case": {}, "repeat": 0}])
    (True, False)
    """
    if not isinstance(value, list) or not all(isinstance(s, dict) for s in value):
        return False
    return all(
        isinstance(s.get("case"), dict)
        and isinstance(s.get("stage_seconds"), dict)
        and all(isinstance(s.get(name), int | float) for name in NUMBERS)
        and all(isinstance(seconds, int | float) for seconds in s["stage_seconds"].values())
        and s["wall_seconds"] > 0
        and s["matrix_flops_per_second"] > 0
        for s in value
    )


def sample_rate(sample: dict[str, Any]) -> float:
    """Sentences a second of one sample."""
    return float(sample["num_sentences"] / sample["wall_seconds"])


def _row(case: BenchCase, samples: Sequence[dict[str, Any]], error: str) -> BenchRow:
    def median(value: Callable[[dict[str, Any]], float]) -> float:
        return statistics.median(value(s) for s in samples)

    def share(step: str) -> float:
        return median(lambda s: s["stage_seconds"].get(step, 0.0) / s["wall_seconds"])

    last = samples[-1]
    tokenize = median(lambda s: s["tokenize_seconds"] / s["wall_seconds"])
    return BenchRow(
        case=case,
        num_samples=len(samples),
        num_sentences=last["num_sentences"],
        num_tokens=last["num_tokens"],
        num_nodes=last["num_nodes"],
        num_padding=last["num_padding"],
        sentences_per_second=median(sample_rate),
        tokens_per_second=median(lambda s: s["num_tokens"] / s["wall_seconds"]),
        nodes_per_second=median(lambda s: s["num_nodes"] / s["wall_seconds"]),
        matrix_share=median(lambda s: s["flops"] / s["wall_seconds"] / s["matrix_flops_per_second"]),
        stage_shares={"tokenize": tokenize, **{step: share(step) for step in last["stage_seconds"]}},
        peak_host_bytes=max(s["peak_host_bytes"] for s in samples),
        peak_device_bytes=max(s["peak_device_bytes"] for s in samples),
        load_seconds=median(lambda s: s["load_seconds"]),
        warm_seconds=median(lambda s: s["warm_seconds"]),
        error=error,
    )


def table_of(rows: Sequence[BenchRow]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells to print, one row a case; `stages` are shares of the wall's time, which overlap."""
    headings = [
        "model",
        "backend",
        "dtype",
        "batch",
        "sentences/s",
        "tokens/s",
        "nodes/s",
        "of matrix rate",
        "stages",
        "host",
        "device",
        "load",
    ]
    return headings, [_cells(row) for row in rows]


def _cells(row: BenchRow) -> list[str]:
    case = row.case
    model = case.model + (" (random)" if case.random_weights else "")
    named = [model, case.backend, case.dtype, str(case.batch_tokens)]
    if not row.num_samples:
        return [*named, *[""] * 4, row.error, *[""] * 3]
    stages = " ".join(f"{step} {share:.0%}" for step, share in row.stage_shares.items())
    device = f"{row.peak_device_bytes / 2**30:.2f} GiB" if row.peak_device_bytes else "-"
    return [
        *named,
        f"{row.sentences_per_second:,.1f}",
        f"{row.tokens_per_second:,.0f}",
        f"{row.nodes_per_second:,.0f}",
        f"{row.matrix_share:.0%}",
        stages,
        f"{row.peak_host_bytes / 2**30:.2f} GiB",
        device,
        f"{row.load_seconds:.1f} s",
    ]
