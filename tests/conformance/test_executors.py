"""The executor contract in this process and on real Ray."""

from __future__ import annotations

import os
import signal

import pytest
from executor_contract import ExecutorContract, bench, not_a_number, plain

from drillcore.errors import ModelError, RunError
from support.clusters import ray_cluster

__all__ = ["bench", "plain"]


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one core, which outlive the runs."""
    with ray_cluster() as found:
        yield found


def own_process(_):
    return os.getpid()


def be_ended(_):
    os.kill(os.getpid(), signal.SIGKILL)


class TestLocal(ExecutorContract):
    @pytest.fixture
    def settings(self) -> dict:
        return {"executor": "local"}

    def test_map_gives_long_calls_processes_of_their_own(self, executor):
        assert {pid for _, pid in executor.map(own_process, range(4))} == {os.getpid()}
        cores = len(os.sched_getaffinity(0))
        assert (os.getpid() in {pid for _, pid in executor.map(own_process, range(4), memory=2**20)}) == (cores == 1)

    @pytest.mark.skipif(len(os.sched_getaffinity(0)) == 1, reason="one core: calls stay in this process")
    def test_a_process_that_is_ended_ends_the_run_plainly(self, executor):
        with pytest.raises(RunError, match="was ended from outside"):
            list(executor.map(be_ended, range(3), memory=2**20))


class TestRay(ExecutorContract):
    @pytest.fixture
    def settings(self, cluster) -> dict:
        return {"executor": "ray", "address": cluster.address}


def test_the_only_model_of_a_job_has_its_own_error(bench, models, tmp_path):
    broken = not_a_number(models("llama"), tmp_path / "broken")
    with pytest.raises(ModelError, match=r"model .*broken: LlamaModel gives states that are NaN") as caught:
        bench.run("broken", [str(broken)], [bench.texts("d", 5)], {"executor": "local"})
    assert caught.value.exit_status == 2
