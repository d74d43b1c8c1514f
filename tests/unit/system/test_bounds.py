"""What a user's files may be and may take: no pipe is read, no document is too deep, no program runs for ever."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress

import pytest

from drillcore.system.bounds import (
    BeyondBounds,
    bounded,
    parse_json,
    problem_with,
    problem_with_output,
    read_bytes,
    read_json,
    read_object,
)


@pytest.fixture
def odd(tmp_path):
    """Places that are no ordinary file, by what is said of them."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "broken").symlink_to("nothing")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    (tmp_path / "huge").touch()
    os.truncate(tmp_path / "huge", 2**40)
    return {
        tmp_path / "pipe": "is not an ordinary file",
        tmp_path / "zero": "is not an ordinary file",
        tmp_path / "broken": "is a link to a file that is not there",
        tmp_path / "loop": "cannot be read: ",
        tmp_path / "folder": "is a directory, not a file",
        tmp_path / "missing": "there is no such file",
        tmp_path / "nul\0": "cannot be the name of a file",
        tmp_path / ("x" * 5000): "cannot be read: File name too long",
    }


def test_no_odd_file_is_read(odd):
    for path, problem in odd.items():
        assert problem_with(path).startswith(problem), path
        with pytest.raises(OSError, match=problem):
            read_bytes(path)
        assert read_object(path) == {}


def test_a_file_has_so_many_bytes_at_most(odd, tmp_path):
    with pytest.raises(OSError, match="more than the 1,000 that"):
        read_bytes(tmp_path / "huge", 1000)
    (tmp_path / "whole").write_bytes(b"x" * 1000)
    assert read_bytes(tmp_path / "whole", 1000) == b"x" * 1000


def test_a_file_takes_the_place_of_a_file_only(odd, tmp_path):
    said = {path.name: problem_with_output(path) for path in odd}
    assert said["missing"] == said["broken"] == ""
    assert all(said[name] for name in ("pipe", "zero", "folder", "nul\0"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 50_000, "nested too deeply"),
        ("9" * 5000, "a number too long to read"),
        ('"\\ud800"', "half of a surrogate pair"),
        ("", "Expecting value"),
        ("\0", "Expecting value"),
        ("{", "Expecting property name"),
    ],
)
def test_json_of_any_shape_is_a_value_error(text, why, tmp_path):
    with pytest.raises(ValueError, match=why):
        parse_json(text)
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=why):
        read_json(tmp_path / "a.json")
    assert read_object(tmp_path / "a.json") == {}


@pytest.mark.parametrize("text", ["[]", "null", "5", '"x"', "true"])
def test_an_object_that_is_something_else_is_empty(text, tmp_path):
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    assert read_object(tmp_path / "a.json") == {}


def for_ever():
    while True:
        try:
            while True:
                pass
        except Exception:  # as code that is stopped may do
            continue


def test_what_never_ends_ends():
    before = signal.getsignal(signal.SIGVTALRM)
    with pytest.raises(BeyondBounds, match=r"took more than 0\.05 seconds of processor time"), bounded(0.05, 2**30):
        for_ever()
    assert signal.getsignal(signal.SIGVTALRM) is before and signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)


@pytest.mark.parametrize("take", [lambda: "x" * 2**36, lambda: [bytearray(2**24) for _ in range(2**12)]])
def test_what_takes_all_memory_ends(take):
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.raises(BeyondBounds, match=r"needed more than 0\.25 GiB of memory"), bounded(30, 2**28):
        take()
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    assert len(bytearray(2**29)) == 2**29


def test_other_threads_are_not_timed_and_nothing_fails_there():
    found = []

    def work():
        with bounded(1, 2**30):
            found.append(sum(range(1000)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [499500]


def test_threads_that_are_inside_at_the_same_time_leave_no_limit_behind():
    """The one that entered first leaves first: the other one must not put back the limit that it found."""
    import resource

    before, steps = resource.getrlimit(resource.RLIMIT_DATA), [threading.Event() for _ in range(3)]
    inside = []

    def first():
        with bounded(30, 2**28):
            steps[0].set()
            steps[1].wait()
        steps[2].set()

    def second():
        steps[0].wait()
        with bounded(30, 2**28):
            steps[1].set()
            steps[2].wait()
            inside.append(resource.getrlimit(resource.RLIMIT_DATA)[0])

    threads = [threading.Thread(target=work) for work in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert inside[0] != resource.RLIM_INFINITY and resource.getrlimit(resource.RLIMIT_DATA) == before
    assert len(bytearray(2**30)) == 2**30


@pytest.mark.parametrize("seconds", [0.01, 0.02, 0.03])
def test_however_it_ends_nothing_is_left_behind(seconds):
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA), signal.getsignal(signal.SIGVTALRM)
    for _ in range(20):
        with suppress(BeyondBounds), bounded(seconds, 2**30):
            started = time.process_time()
            while time.process_time() - started < seconds:
                pass
        assert (resource.getrlimit(resource.RLIMIT_DATA), signal.getsignal(signal.SIGVTALRM)) == before
        assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)
