"""The Ray executor: one actor for each GPU (or so many of them, or so many CPU cores), on one host or many."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from drillcore.backends.device import Hardware
from drillcore.errors import MissingExtraError
from drillcore.job.extract import Extract
from drillcore.job.stages import Run
from drillcore.runtime.executors.ray.cluster import Cluster, Size, share_out
from drillcore.runtime.work.tasks import SweepModel
from drillcore.system.machine import share_machine
from drillcore.system.progress import Progress, with_lines

if TYPE_CHECKING:
    from drillcore.runtime.executors.ray.actors import Actors
    from drillcore.runtime.executors.ray.sweep import RaySweep

Item = TypeVar("Item")
Result = TypeVar("Result")


def _in_share(processes: int, function: Callable[[Item], Result], item: Item) -> tuple[Result, list[str]]:
    """Call a function in one of so many processes that share a machine; gives what it said, too."""
    share_machine(processes)
    return with_lines(function, item)


class RayExecutor:
    """A Ray cluster. Connects to it, or starts it, when there is something to run."""

    def __init__(self, settings: Run, extract: Extract, say: Callable[[str], None]) -> None:
        try:
            self._cluster = Cluster(settings.address)
        except ImportError:
            raise MissingExtraError(
                "executor ray needs ray, which is not installed", hint="pip install 'drillcore[ray]'"
            ) from None
        self._settings = settings
        self._extract = extract
        self._say = say
        self._actors: Actors | None = None
        self._done: dict[str, Any] = {}

    def describe(self) -> dict[str, Any]:
        """The cluster, how it is shared out, and what each worker did."""
        return {"executor": "ray", "address": self._settings.address or "started for this run", **self._done}

    def check(self) -> None:
        """Connect to the cluster, and raise JobError where no node of it has what the job asks for."""
        self._cluster.connect()
        share_out(self._cluster.nodes(), self._extract)

    def hardware(self) -> Hardware:
        """That of the first worker that answers; all that work are like it."""
        actors = self._start()
        return replace(actors.first().hardware, threads=actors.size.threads, num_workers=actors.size.num_workers)

    def sweep(self, models: Sequence[SweepModel], progress: Progress) -> RaySweep:
        """Run the models over all workers; the workers are given back when the sweep's context ends."""
        from drillcore.runtime.executors.ray.sweep import RaySweep

        return RaySweep(self._start(), models, self._settings.retries, progress, self._say, self._after_sweep)

    def _after_sweep(self, actors: Actors, failed: bool) -> None:
        """Note what the workers did and give them back; Ray's logs may hold the reason of what failed for good."""
        if failed:
            self._keep_logs()
        self._done = {"worker_size": str(actors.size), "workers": [w.describe() for w in actors.all]}
        actors.close()
        self._actors = None

    def _start(self) -> Actors:
        """The actors, started once."""
        if self._actors is None:
            self._cluster.connect()
            from drillcore.runtime.executors.ray.actors import Actors

            self._actors = Actors(share_out(self._cluster.nodes(), self._extract), self._extract, self._say)
        return self._actors

    def _keep_logs(self) -> None:
        folder = self._cluster.keep_logs()
        if folder is not None:
            self._say(f"the logs of Ray's workers stay in {folder}")

    def map(
        self, function: Callable[[Item], Result], items: Sequence[Item], gpus: int = 0, memory: int = 0
    ) -> Iterator[tuple[int, Result]]:
        """Call it on any core (or GPU) of the cluster; Ray tries a call again whose process died."""
        if not items:
            return
        self._cluster.connect()
        if self._actors is not None:
            self._actors.close()
            self._actors = None
        ray = self._cluster.ray
        remote = ray.remote(_in_share).options(
            num_cpus=1, num_gpus=gpus, memory=memory or None, max_retries=self._settings.retries
        )
        nodes, size = ray.nodes(), Size(len(items), gpus, 1, 1)
        share = min(len(items), max(size.beside(nodes, node["NodeID"]) for node in nodes))
        running = {remote.remote(share, function, item): position for position, item in enumerate(items)}
        try:
            while running:
                ready, _ = ray.wait([*running], fetch_local=False)
                for ref in ready:
                    position = running.pop(ref)
                    result, lines = self._result(ref)
                    for line in lines:
                        self._say(line)
                    yield position, result
        finally:
            for ref in running:
                ray.cancel(ref, force=True)

    def _result(self, ref: Any) -> Any:
        """What a call gave; raises what it raised."""
        try:
            return self._cluster.ray.get(ref)
        except self._cluster.ray.exceptions.RayTaskError as error:
            raise (error.cause or error) from None

    def close(self) -> None:
        """End the actors, and the cluster where this run started it."""
        if self._actors is not None:
            self._actors.close()
            self._actors = None
        self._cluster.close()
