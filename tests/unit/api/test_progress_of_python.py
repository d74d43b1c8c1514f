"""Who hears the progress of what Python code starts."""

from __future__ import annotations

import logging
import sys
import types

import pytest

from drillcore.api import progress


class Heard:
    def __init__(self):
        self.calls = []

    def start(self, stage, total, unit):
        self.calls.append(("start", stage, total, unit))

    def advance(self, count):
        self.calls.append(("advance", count))

    def finish(self, summary):
        self.calls.append(("finish", summary))

    def say(self, message):
        self.calls.append(("say", message))

    def warn(self, message):
        self.calls.append(("warn", message))


def tell(listener):
    listener.start("extract <m>", 4, "sentences")
    listener.advance(3)
    listener.say("a note \x1b[31m")
    listener.finish("extract: done")


def test_nothing_is_shown_by_default_and_messages_are_logged(capsys, caplog):
    caplog.set_level(logging.INFO, "drillcore")
    tell(progress.listener(None))
    tell(progress.listener(False))
    assert capsys.readouterr() == ("", "")
    assert caplog.messages == ["extract <m>: 4 sentences", "a note \\x1b[31m", "extract: done"] * 2


def test_the_logger_has_no_handler_that_shows_anything():
    assert [type(h) for h in logging.getLogger("drillcore").handlers] == [logging.NullHandler]


def test_lines_go_to_standard_error(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINES_EVERY", 0.0)
    tell(progress.listener(True))
    out, err = capsys.readouterr()
    first, half, *rest = err.splitlines()
    assert out == "" and first == "extract <m>: 4 sentences" and half.startswith("extract <m>: 3 of 4 sentences, ")
    assert rest == ["a note \\x1b[31m", "extract: done"]


def test_a_listener_hears_everything_itself():
    heard = Heard()
    tell(progress.listener(heard))
    assert heard.calls == [
        *(("start", "extract <m>", 4, "sentences"), ("advance", 3)),
        *(("say", "a note \x1b[31m"), ("finish", "extract: done")),
    ]


def test_what_is_no_listener_is_refused():
    with pytest.raises(TypeError, match="str has no method start, advance, finish, say"):
        progress.listener("yes")


@pytest.fixture
def notebook(monkeypatch):
    """A notebook's front end: what it displays, and what takes its place."""
    shown = []

    class Handle:
        def update(self, data, raw):
            assert raw
            shown.append(("update", data))

    def display(data, raw, display_id):
        assert raw and display_id is True
        shown.append(("display", data))
        return Handle()

    module, part = types.ModuleType("IPython"), types.ModuleType("IPython.display")
    module.get_ipython, part.display = lambda: types.SimpleNamespace(kernel=object()), display
    monkeypatch.setitem(sys.modules, "IPython", module)
    monkeypatch.setitem(sys.modules, "IPython.display", part)
    return shown


def test_a_notebook_shows_one_output_that_changes(notebook, capsys, monkeypatch):
    monkeypatch.setattr(progress, "PAGES_EVERY", 0.0)
    tell(progress.listener(True))
    kinds, pages = zip(*[(kind, data["text/html"]) for kind, data in notebook], strict=True)
    assert kinds == ("display", *["update"] * 3) and capsys.readouterr() == ("", "")
    assert '<progress max="4" value="0">' in pages[0] and '<progress max="4" value="3">' in pages[1]
    assert "extract &lt;m&gt;: 3 of 4 sentences" in pages[1] and "<m>" not in "".join(pages)
    assert pages[-1] == "<div><div>a note \\x1b[31m</div><div>extract: done</div></div>"
    assert notebook[-1][1]["text/plain"] == "a note \\x1b[31m\nextract: done"


def test_a_terminal_with_ipython_is_no_notebook(notebook, monkeypatch):
    sys.modules["IPython"].get_ipython = lambda: types.SimpleNamespace()
    assert progress.notebook_display() is None
