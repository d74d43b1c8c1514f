"""Stores with several positions grow, resume and refuse as stores with one do."""

from __future__ import annotations

import numpy as np
import pytest

from support.runs import assert_close, sentences

pytest_plugins = ["support.run_fixtures"]
POSITIONS = ["last", "mean", {"last": 3}, {"all": {}, "layers": [1, 2]}, {"text": "word", "name": "w", "pool": "all"}]


def rows(seed: int, count: int) -> list[dict[str, str]]:
    return [{**row, "word": row["text"].split()[-1]} for row in sentences(seed, count)]


def with_positions(new_work, name: str, seed: int, count: int, positions, **settings):
    work = new_work(name, seed=seed, count=count, **settings)
    work.texts("d", rows(seed, count))
    work.job["extract"]["positions"] = positions
    work.save()
    return work


def whole(work) -> None:
    command = work.forge.run("verify", "runs/job.zarr", cwd=work.folder)
    assert command.status == 0, command.out + command.err


def assert_rows_stay(work, kept) -> None:
    """What a store held before it grew is there, bit for bit; the last places may have got rows."""
    now = work.values()
    for path, values in kept.items():
        held = ~np.isnan(values).any(axis=(1, 2))
        assert held.any() and (now[path][: len(values)][held] == values[held]).all(), path


@pytest.mark.parametrize("backend", ["fake", "transformers"])
def test_sentences_at_the_end(backend, new_work, seed):
    want = with_positions(new_work, "whole", seed, 75, POSITIONS, backend=backend)
    want.finish()
    whole(want)
    work = with_positions(new_work, "grown", seed, 40, POSITIONS, backend=backend)
    work.finish()
    work.texts("d", rows(seed, 75))
    kept = work.values()
    work.finish()
    whole(work)
    assert work.extracted() == 75 - 40, "all that was computed stays"
    assert_close(work.values(), want.values())
    assert_rows_stay(work, kept)
    before = work.states()
    work.finish()
    assert work.states() == before


def test_a_position_that_is_added_leaves_the_others(new_work, seed):
    want = with_positions(new_work, "whole", seed, 75, POSITIONS)
    want.finish()
    work = with_positions(new_work, "added", seed, 75, ["last"])
    work.finish()
    kept = work.committed()
    work.job["extract"]["positions"] = POSITIONS
    work.save()
    work.finish()
    now = work.committed()
    assert {group: now[group] for group in kept} == kept
    got, wanted = work.states(), want.states()
    # The record of the first group says that it was computed alone.
    differing = {path for path in wanted if got[path] != wanted[path]}
    assert got.keys() == wanted.keys() and all(path.startswith("m/d/shard_fingerprint/") for path in differing)
    whole(work)


def test_what_would_be_lost_is_refused(new_work, seed):
    work = with_positions(new_work, "work", seed, 75, ["last", {"last": 3, "name": "end"}, {"mean": {}}])
    work.finish()
    for position, words in (
        ({"last": 2, "name": "end"}, "position is {'last': 2}, it was {'last': 3}"),
        ({"last": 3, "name": "end", "layers": [0]}, "layers"),
    ):
        work.job["extract"]["positions"][1] = position
        work.save()
        command = work.run()
        assert command.status == 2 and "m/d~end" in command.err and words in command.err, command.err
        assert "m/d~mean" not in command.err
    work.finish("--overwrite")
    whole(work)


def test_a_changed_place_is_computed_again(new_work, seed):
    work = with_positions(new_work, "work", seed, 75, ["last", {"text": "word", "name": "w"}])
    work.finish()
    before = work.states()
    changed = rows(seed, 75)
    changed[70]["word"] = changed[70]["text"].split()[0]
    work.texts("d", changed)
    command = work.run()
    assert command.status == 2 and "m/d~w" in command.err and "m/d:" not in command.err, command.err
    work.finish("--overwrite")
    after = work.states()
    differing = {path for path in before if before[path] != after[path]}
    assert differing and all(path.startswith("m/d~w/") and "/4/" in path for path in differing), differing


@pytest.mark.parametrize("audit", [0, "auto"])
def test_another_place_in_the_same_token(audit, new_work, seed):
    """The states stay as they are, and `exact` does not: the coordinates follow the position."""
    work = new_work("work", backend="transformers", run={"audit": audit})
    work.texts("d", [{"text": f"é wé {n}"} for n in range(20)])
    work.job["extract"]["positions"] = [{"after": "é w", "name": "a"}, {"after": "w", "name": "b"}]
    work.save()
    work.finish()
    positions = work.job["extract"]["positions"]
    positions[0]["after"], positions[1]["after"] = positions[1]["after"], positions[0]["after"]
    positions[0]["pool"] = positions[1]["pool"] = "last"
    work.save()
    work.finish("--overwrite")
    whole(work)
    if audit:
        command = work.forge.run("verify", "runs/job.zarr", "--recompute", "3", cwd=work.folder)
        assert command.status == 0, command.out


def test_coordinates_are_made_from_all_that_they_say():
    """Two positions at the same tokens, one of which holds more than is meant."""
    from drillcore.job.positions import Position
    from drillcore.runtime.positions import Placed
    from drillcore.tokens.sequences import Sequences

    tokens = Sequences.of([[5, 6, 7]])
    digests = {
        Placed(
            Position.model_validate({"after": marker, "name": "a"}), tokens, frozenset(), Sequences.of([found])
        ).digest()
        for marker in ("x", "y")
        for found in ([1, 1, 2, 3, 4], [0, 1, 2, 3, 4], [1, 1, 2, 3, 5])
    }
    assert len(digests) == 6


def test_every_token_asks_above_a_size(new_work, seed):
    work = with_positions(new_work, "work", seed, 75, [{"all": {"max_bytes": 1000}}])
    command = work.run()
    assert command.status == 2 and "GB before compression, more than" in command.err and "--yes" in command.err
    assert not work.store.exists()
    plan = work.forge.run("plan", "job.yaml", "--no-calibrate", cwd=work.folder)
    assert plan.status == 0 and "d~all" in plan.out, plan.out + plan.err
    work.finish("--yes")
    whole(work)
