"""The results of one stage are recorded together: a stage that is killed leaves none that stands for other inputs."""

from __future__ import annotations

import numpy as np
import pytest

from drillcore.runtime.stages.measure import ARRAYS_MADE
from drillcore.runtime.wanted import is_up_to_date
from drillcore.store import group as group_module
from drillcore.store.attributes import make_group
from drillcore.store.freshness import ResultInputs
from drillcore.store.group import GroupWriter
from drillcore.store.layout import choose_shape
from drillcore.store.places.local import DurableStore

SHAPES = {"layer_cka": (2, 2), "separation": (2, 1, 5)}


def inputs(states: str) -> ResultInputs:
    return ResultInputs("measure", states, {}, {})


def values(seed: int) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    made = {name: draw.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    return {name: made.get(name, np.array([f"{name} {seed}"])) for name in ARRAYS_MADE}


def write(writer: GroupWriter, states: str, seed: int) -> None:
    made = inputs(states)
    writer.write_results(made.digest, values(seed), {name: {"inputs": made.record()} for name in ARRAYS_MADE})


@pytest.fixture
def writer(tmp_path):
    store = DurableStore(tmp_path / "s.zarr")
    make_group(store, "")
    writer = GroupWriter(make_group(store, "m/d"))
    writer.ensure(choose_shape(4, (0, 1), ("embed", "block_1"), 8, "float32"), [("text", "string")])
    return writer


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("name", ARRAYS_MADE)
def test_a_stage_is_killed_and_its_inputs_change_back(writer, name, moment, seed, monkeypatch):
    write(writer, "first", seed)
    assert is_up_to_date(writer, ARRAYS_MADE, inputs("first"), "")
    step = "create_array" if moment == "before" else "array_digests"
    real = getattr(group_module, step)

    def dying(*arguments):
        about = arguments[1].name if moment == "before" else arguments[1].basename
        if about == name and name not in writer.attributes["contents"]:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(group_module, step, dying)
        write(writer, "second", seed + 1)
    assert not is_up_to_date(writer, ARRAYS_MADE, inputs("first"), "")
    assert not is_up_to_date(writer, ARRAYS_MADE, inputs("second"), "")
    write(writer, "first", seed)
    assert is_up_to_date(writer, ARRAYS_MADE, inputs("first"), "")
    for array, expected in values(seed).items():
        assert np.array_equal(np.asarray(writer.group[array][...]), expected)


@pytest.mark.parametrize("name", ARRAYS_MADE)
def test_a_result_that_is_gone_is_missed_whichever_it_is(writer, name, seed):
    write(writer, "first", seed)
    writer.describe(results={n: facts for n, facts in writer.attributes["results"].items() if n != name})
    assert not is_up_to_date(writer, ARRAYS_MADE, inputs("first"), "")
