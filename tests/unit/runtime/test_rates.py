"""What earlier work took says how long other work will take; the file that keeps it may be damaged or refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from drillcore.runtime import rates
from drillcore.runtime.costs import Piece
from drillcore.runtime.rates import FROM_RUN, SCALED_MODEL, SCALED_SIZE, TIMED_BEFORE, TIMED_NOW, Rates, Seen
from drillcore.system.progress import telling

PIECE = Piece("extract", "forward", 10.0, "here", "model")


def seen(work: float, seconds: float, origin: str = "run", when: float = 1.0, **changes) -> Seen:
    return replace(Seen("forward", "here", "model", work, seconds, origin, when), **changes)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_runs_of_about_the_size_come_first_then_what_was_timed_then_what_must_be_scaled():
    other = seen(10, 90, like="another model")
    far, timed, near = seen(1000, 2000), seen(5, 15, "plan"), seen(8, 8)
    known = [near, timed, far, other]
    for expected, source in (
        (10, FROM_RUN),
        (30, TIMED_BEFORE),
        (20, SCALED_SIZE),
        (90, SCALED_MODEL),
    ):
        found = Rates(known).find(PIECE)
        assert found is not None and (found.seconds, found.source) == (pytest.approx(expected), source)
        known = known[1:]
    assert Rates(known).find(PIECE) is None
    assert Rates([replace(near, setting="elsewhere"), replace(near, kind="load")]).find(PIECE) is None
    new = Rates([]).with_new([timed]).find(PIECE)
    assert new is not None and new.source == TIMED_NOW


def test_the_nearest_in_size_decide_and_of_these_the_median():
    known = [seen(9, 9), seen(10, 20), seen(11, 990), seen(150, 150 * 50), seen(0.6, 0.6 * 50)]
    found = Rates(known).find(PIECE)
    assert found is not None and found.seconds == pytest.approx(20)


def test_pieces_that_are_alike_count_as_one_and_an_unknown_one_leaves_all_unknown():
    start, group = replace(PIECE, work=0.1), replace(PIECE, work=100.0)
    found = Rates([seen(100, 50)]).of_all([start, group])
    assert found is not None and (found.seconds, found.source) == (pytest.approx(50.05), FROM_RUN)
    assert Rates([seen(100, 50)]).of_all([group, replace(PIECE, kind="load")]) is None
    nothing = Rates([]).of_all([])
    assert nothing is not None and nothing.seconds == 0


def test_what_was_seen_is_kept_but_no_more_than_its_share():
    rates.add([seen(10, 20)])
    found = Rates.read().find(PIECE)
    assert found is not None and found.seconds == pytest.approx(20)
    rates.add(seen(10, 30, when=k) for k in range(2, 40))
    kept = Rates.read()._seen
    assert len(kept) == rates.MOST_ALIKE and min(s.when for s in kept) == 40 - rates.MOST_ALIKE
    rates.add(seen(10, 30, like=str(k), when=k) for k in range(rates.MOST + 50))
    assert len(Rates.read()._seen) == rates.MOST
    # What cannot be a rate is not kept.
    rates.add([seen(0, 1, like="n"), seen(1, 0, like="n"), seen(1, float("inf"), like="n")])
    assert not any(s.like == "n" for s in Rates.read()._seen)


@pytest.mark.parametrize("damage", [b"", b"no entry at all", None])
def test_a_damaged_file_is_made_again(damage):
    rates.add([seen(10, 20)])
    path = rates._entry().path
    path.write_bytes(path.read_bytes()[:-3] if damage is None else damage)
    lines = list[str]()
    with telling(lines.append):
        assert Rates.read().find(PIECE) is None
        assert "what earlier work took" in lines[0]
        assert Rates.read().find(PIECE) is None and len(lines) == 1
    rates.add([seen(10, 20)])
    assert Rates.read().find(PIECE) is not None


@pytest.mark.parametrize(
    "facts",
    [
        {"a": 1},
        [{"kind": "forward"}],
        [{"kind": 1, "setting": "", "like": "", "work": 1, "seconds": 1, "origin": "run", "when": 1}],
        [{"kind": "", "setting": "", "like": "", "work": 0, "seconds": 1, "origin": "run", "when": 1}],
        [{"kind": "", "setting": "", "like": "", "work": 1, "seconds": "x", "origin": "run", "when": 1}],
        [{"kind": "", "setting": "", "like": "", "work": 1, "seconds": 1, "origin": "elsewhere", "when": 1}],
    ],
)
def test_a_whole_file_that_holds_something_else_is_not_believed(facts):
    rates._entry().write(facts)
    assert Rates.read()._seen == ()


def test_a_cache_that_cannot_be_written_is_left(tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be", encoding="utf-8")
    rates.add([seen(10, 20)])
    assert Rates.read().find(PIECE) is None
