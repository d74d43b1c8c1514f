"""The log of a run: every line once, kept in bounds, and no reason for a run to fail."""

from __future__ import annotations

import logging
import re

import pytest

from drillcore.errors import RunError
from drillcore.runtime import log as logs
from drillcore.runtime.log import RunLog
from drillcore.system.progress import Silent, tell, tell_detail, telling


@pytest.fixture
def log():
    made = RunLog(Silent())
    with telling(made.say, made.detail):
        yield made
    made.close()


def lines(folder):
    return (folder / "log.txt").read_text(encoding="utf-8").splitlines()


def test_lines_of_before_the_file_are_written_after_the_heading(log, tmp_path):
    tell("said before")
    log.open(tmp_path, "a heading")
    log.start("extract", 1200, "sentences")
    tell_detail("a detail")
    log.finish("extracted")
    log.end(None)
    found = [
        re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}[+-]\d{4} (\w+) +drillcore: (.*)", line) for line in lines(tmp_path)
    ]
    assert [match.groups() for match in found] == [
        ("INFO", "a heading"),
        ("INFO", "said before"),
        ("INFO", "extract: 1,200 sentences"),
        ("DEBUG", "a detail"),
        ("INFO", "extracted"),
        ("INFO", "done"),
    ]


def test_warnings_of_libraries_are_in_the_file_and_ours_are_there_once(log, tmp_path):
    log.open(tmp_path)
    logging.getLogger("transformers.x").warning("odd weights")
    logging.getLogger("transformers.x").info("chatter")
    logging.getLogger("drillcore").setLevel(logging.DEBUG)
    log.say("ours")
    logging.getLogger("drillcore").setLevel(logging.NOTSET)
    assert [line.split(maxsplit=1)[1] for line in lines(tmp_path)] == [
        "WARNING transformers.x: odd weights",
        "INFO    drillcore: ours",
    ]


def test_the_logger_of_python_has_the_lines_at_its_own_level(log, caplog):
    with caplog.at_level(logging.INFO, logger="drillcore"):
        log.say("a line")
        log.detail("a detail")
    assert [(r.name, r.levelname, r.getMessage()) for r in caplog.records] == [("drillcore", "INFO", "a line")]
    caplog.clear()
    log.say("nobody asked")
    assert not caplog.records


def test_details_also_go_to_who_heard_them_before(tmp_path):
    heard = []
    with telling(heard.append, heard.append):
        log = RunLog(Silent())
        with telling(log.say, log.detail):
            tell_detail("a detail")
        log.close()
    assert heard == ["a detail"]


def test_an_error_has_its_hint_and_its_traceback(log, tmp_path):
    log.open(tmp_path)
    try:
        raise RunError("it broke", hint="mend it")
    except RunError as error:
        log.end(error)
    text = (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert "failed: it broke\n  mend it\nTraceback" in text and 'raise RunError("it broke"' in text


def test_an_interrupt_has_no_traceback(log, tmp_path):
    log.open(tmp_path)
    log.end(KeyboardInterrupt())
    assert len(lines(tmp_path)) == 1 and "interrupted" in lines(tmp_path)[0]


def test_control_characters_are_escapes(log, tmp_path):
    log.open(tmp_path)
    log.say("red \x1b[31m \u202e \ud800 Привет")
    assert "red \\x1b[31m \\u202e \\ud800 Привет" in lines(tmp_path)[0]


def test_a_long_log_is_put_aside_once(log, tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "MOST_BYTES", 1000)
    log.open(tmp_path)
    for i in range(100):
        log.say(f"line {i}")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(logs.FILES)
    assert all(p.stat().st_size <= 1000 for p in tmp_path.iterdir()) and "line 99" in lines(tmp_path)[-1]


@pytest.mark.parametrize("what", ["a folder", "no folder", "full"])
def test_a_file_that_cannot_be_written_is_no_failure(what, log, tmp_path, capsys):
    place = tmp_path / "place"
    if what != "no folder":
        place.mkdir()
    if what == "a folder":
        (place / "log.txt").mkdir()
    if what == "full":
        (place / "log.txt").symlink_to("/dev/full")
    log.open(place, "heading")
    log.say("a line")
    log.end(None)
    log.close()
    assert capsys.readouterr().err == ""


def test_nothing_is_left_behind_at_the_root(tmp_path):
    before = list(logging.getLogger().handlers)
    log = RunLog(Silent())
    log.close()
    log.say("after the end")
    assert logging.getLogger().handlers == before
