"""Times small pieces of the work of a job on this machine, and says whether other programs got in the way."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from drillcore.job.fields import Job
from drillcore.job.stages import Measure, Project, Render
from drillcore.runtime import costs
from drillcore.runtime.costs import Piece, Size
from drillcore.runtime.rates import Seen, seen_now, this_machine
from drillcore.system.machine import busy_cores, load_average, num_cores

# Work of the layer that is measured, in seconds of the reference machine; large layers are cut to it.
MOST_WORK = 2.0
# Sentences of the layer that is projected, panels that are drawn, rows that go through a head.
PROJECTED, PANELS, PREDICTED = 512, 4, 64
# Shares of the cores that others use, and of its time that this process is kept waiting, from which it is said.
BUSY, WAITED = 0.25, 0.4


@dataclass
class Load:
    """What other programs took while things were timed. cores: that they used before; waited: shares of the time."""

    cores: float = 0.0
    waited: list[float] = field(default_factory=list)

    @classmethod
    def now(cls) -> Load:
        """The machine as it is, watched for half a second."""
        return cls(busy_cores(0.5))

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Compare the processor's time with the clock while something is timed that never waits by itself."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        if wall > 0.2:
            self.waited.append(max(0.0, 1 - cpu / wall))

    @property
    def words(self) -> str:
        """A line for the reader; empty on an idle machine."""
        waited = max(self.waited, default=0.0)
        if self.cores <= BUSY * num_cores() and waited <= WAITED:
            return ""
        return (
            f"this machine was busy while the job was timed: other programs used {self.cores:.1f} of {num_cores()} "
            f"cores, the load average is {load_average():.1f}, and this one waited {waited:.0%} of the time. On an "
            "idle machine the job takes less"
        )


def timed_kind(piece: Piece, size: Size, job: Job, vocabulary: int, load: Load) -> Seen:
    """Time a small piece of the kind of a larger one, for one layer of random states of the job's shape.

    size: of the larger piece's group. vocabulary: of its model.
    """
    ways: dict[str, Callable[[], tuple[float, float]]] = {
        "measure": lambda: _measured(size, job.measure, one_thread=piece.setting == this_machine("one thread")),
        "project": lambda: _projected(size, job.project),
        "render": lambda: _rendered(size, job.render),
        "predict": lambda: _predicted(size, vocabulary),
    }
    with load.watching():
        work, seconds = ways[piece.kind]()
    return seen_now(replace(piece, work=work), seconds, "plan")


def _states(rows: int, hidden: int, labels: int) -> tuple[np.ndarray, list[str]]:
    """Random states [rows, hidden] that lean a little towards their labels, and the labels."""
    codes = np.arange(rows) % max(1, labels)
    states = np.random.default_rng(0).normal(size=(rows, hidden)) + 0.1 * codes[:, None]
    return states.astype(np.float32), [str(code) for code in codes]


def cut(size: Size, settings: Measure) -> Size:
    """The group, with so few rows and then dimensions that measuring a layer is work of a moment.

    >>> cut(Size(20_000, 20_000, 2, 30, 576), Measure())
    Size(rows=1250, labelled=1250, labels=2, layers=30, hidden=576)
    """
    small = replace(size, rows=size.labelled)
    while costs.layer_measured(small, settings) > MOST_WORK and (small.rows > 500 or small.hidden > 500):
        if small.rows > 500:
            small = replace(small, rows=small.rows // 2, labelled=small.labelled // 2)
        else:
            small = replace(small, hidden=small.hidden // 2)
    return small


def _measured(size: Size, settings: Measure, *, one_thread: bool) -> tuple[float, float]:
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    from drillcore.measures.draws import make_draws
    from drillcore.measures.numbers import number_draws
    from drillcore.measures.separation import measure_layer

    small = cut(size, settings)
    # What is imported, and grows once, is left out.
    for each in (Size(20, 20, min(2, small.labels), 1, 8), small):
        states, labels = _states(max(2, each.rows), each.hidden, each.labels)
        draws = make_draws(labels, list(range(len(labels))), settings, len(labels))
        if size.is_number:
            draws = number_draws(states[:, 0] - states[:, -1] / 2, None, settings)
        with threadpool_limits(1, user_api="blas") if one_thread else nullcontext():
            started = time.perf_counter()
            measure_layer(states, settings, draws)
            seconds = time.perf_counter() - started
    return costs.layer_measured(small, settings), seconds


def _projected(size: Size, settings: Project) -> tuple[float, float]:
    from drillcore.projections import choose_projection, load_projection

    name = choose_projection(settings, size.rows)[0]
    rows = max(5, min(PROJECTED, size.rows))
    states, _ = _states(rows, size.hidden, 2)
    starts = costs.starts_projecting(rows, settings, with_graph=False) if "umap" not in sys.modules else 0.0
    started = time.perf_counter()
    load_projection(name).fit(states, settings, None)
    seconds = time.perf_counter() - started
    return starts + costs.layer_projected(rows, size.hidden, settings, with_graph=True), seconds


def _rendered(size: Size, settings: Render) -> tuple[float, float]:
    starts = 0.0 if "datashader" in sys.modules else costs.RENDER_STARTS
    started = time.perf_counter()
    from drillcore.pictures.data import Grid, Panel, PanelRow
    from drillcore.pictures.grid.write import write_grid

    rows = max(2, min(20_000, size.rows))
    points, _ = _states(rows, 2, 1)
    panel = Panel("layer", points, (np.arange(rows) % 2).astype(np.int32))
    grid = Grid("timed", "", (PanelRow("", (panel,) * PANELS),), ("a", "b"), panel_px=settings.panel_px)
    with tempfile.TemporaryDirectory(prefix="drillcore-") as scratch:
        write_grid(grid, Path(scratch) / "timed.png")
    seconds = time.perf_counter() - started
    return starts + costs.panels_drawn(PANELS, rows, settings), seconds


def _predicted(size: Size, vocabulary: int) -> tuple[float, float]:
    import torch

    names = min(vocabulary, 32_768)
    states, head = torch.randn(PREDICTED, size.hidden), torch.randn(size.hidden, names)
    seconds = 0.0
    for _ in range(2):  # the first one allocates
        started = time.perf_counter()
        torch.logsumexp(states @ head, 1)
        seconds = time.perf_counter() - started
    return costs.group_predicted(Size(PREDICTED, 0, 0, 1, size.hidden), names), seconds
