"""What a name, a text or an error message holds never moves the cursor, colours or turns around a terminal's lines."""

from __future__ import annotations

import io
import sys
import unicodedata

import pytest
from rich.console import Console

from drillcore.cli.display import Bars, Lines
from drillcore.cli.main import main
from drillcore.cli.tables import write_line
from drillcore.system.visible import visible

HOSTILE = "\x1b[31mred\x1b]0;title\x07 \x9b2J \u202eevil\u2066 \x08\x7f\r \u2028 \ud800"
ORDINARY = "Привет 안녕 日本語 naïve e\u0301 🙂 👩\u200d🔬 \U0001f3f4\U000e0067\U000e0062\U000e007f \u200b \xa0 \ufeff"


def test_every_control_character_is_an_escape():
    shown = visible(HOSTILE)
    assert shown.startswith("\\x1b[31mred\\x1b]0;title\\x07 \\x9b2J \\u202eevil\\u2066 \\x08\\x7f\\r \\u2028 \\ud800")
    left = [c for c in map(chr, range(0x110000)) if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]
    assert [c for c in left if visible(c) == c] == ["\t", "\n"]
    turning = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    assert not [c for c in map(chr, range(0x110000)) if unicodedata.bidirectional(c) in turning and visible(c) == c]


def test_ordinary_text_stays_as_it_is():
    assert visible(ORDINARY + "\n\t") == ORDINARY + "\n\t"


@pytest.mark.parametrize("is_terminal", [False, True])
def test_displays_escape_what_they_say(is_terminal):
    stream = io.StringIO()
    display = (Bars if is_terminal else Lines)(Console(file=stream, width=200, color_system=None))
    display.start(HOSTILE, 1, "sentences")
    display.say(f"{HOSTILE}\n{ORDINARY}")
    display.finish(HOSTILE)
    display.close()
    written = stream.getvalue()
    assert "\\x1b[31mred" in written and ORDINARY in written
    assert not {"\x07", "\x9b", "\u202e", "\u2066", "\x08", "\x7f", "\u2028", "\ud800"} & set(written)
    assert "\x1b[31m" not in written and "\x1b]0" not in written


def test_lines_of_commands_are_escaped(capsys):
    write_line(HOSTILE)
    assert capsys.readouterr().out == visible(HOSTILE) + "\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "{}.yaml"],
        ["{}"],
        ["run", "--{}"],
        ["show", "{}"],
        ["schema", "{}"],
        ["run", "job.yaml", "--set", "{}=1"],
        ["run", "job.yaml", "--set", "{}"],
        ["run", "job.yaml", "--limit", "{}"],
        ["run", "job.yaml", "--debug", "--store", "{}"],
        ["verify", "{}"],
        ["bench", "m", "--out", "a.json", "--lengths", "{}"],
        ["bench", "m", "--out", "a.json", "--lengths", "fixed:9{}"],
    ],
    ids=" ".join,
)
def test_messages_are_escaped_and_short(arguments, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.yaml").write_text("models: [./m]\ndatasets: {d: a.txt}\n", encoding="utf-8")
    for name in ("\x1b[31mred\x9b\u202e\x07", "x" * 100_000):
        monkeypatch.setattr(sys, "argv", ["drillcore", *(a.format(name) for a in arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert ended.value.code == 2 and not {"\x1b", "\x9b", "\u202e", "\x07"} & set(said.out + said.err)
        assert "bug in drillcore" not in said.err and 0 < len(said.err) < 20_000


def test_a_terminal_without_unicode_gets_escapes(monkeypatch):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(sys, "argv", ["drillcore", "run", "Привет.yaml"])
    with pytest.raises(SystemExit):
        main()
    stream.flush()
    assert b"there is no job file \\u041f" in raw.getvalue()


@pytest.mark.parametrize(
    "number", ["9" * 4400, str(2**62), str(2**70), "-0", "1e400", "-1", "nan"], ids=lambda n: n[:9]
)
def test_a_number_of_an_option_is_bounded(number, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    bench = ["bench", "m", "--out", "a.json"]
    for arguments in (
        *(
            [*bench, "--lengths", "fixed:3", option, number]
            for option in ("--sentences", "--repeats", "--batch-tokens")
        ),
        *([*bench, "--lengths", f"{kind}:{number}"] for kind in ("fixed", "uniform", "lognormal")),
        *([*bench, "--lengths", form] for form in (f"uniform:1-{number}", f"lognormal:3,{number}")),
        *(["run", "job.yaml", "--limit", number], ["verify", "a.zarr", "--recompute", number]),
    ):
        monkeypatch.setattr(sys, "argv", ["drillcore", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr().err
        assert ended.value.code == 2 and "bug in drillcore" not in said and len(said) < 10_000, arguments
