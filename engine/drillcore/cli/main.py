"""The command line: arguments, printing, exit status. The only part that prints, and the only one that exits."""

from __future__ import annotations

import io
import sys
import traceback

import typer

from drillcore.cli.commands import machine, planning, reading, starting
from drillcore.cli.commands.running import STAGE_COMMANDS
from drillcore.cli.tables import write_line
from drillcore.errors import DrillcoreError
from drillcore.system.machine import few_arenas
from drillcore.system.progress import telling
from drillcore.system.signals import stoppable

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Last-token hidden states of every layer of language models: extract, measure, project, render.",
)
for _name, (_command, _help) in STAGE_COMMANDS.items():
    app.command(_name, help=_help)(_command)
for _command in (
    planning.plan,
    reading.show,
    reading.export,
    reading.compare,
    reading.rm,
    reading.verify,
    machine.bench,
    machine.doctor,
    machine.demo_model,
    machine.schema,
    starting.init,
    starting.demo,
):
    app.command()(_command)

# Exit status of a command that was interrupted.
INTERRUPTED = 130
# Characters of one line of a message.
LONGEST = 2000


def main() -> None:
    """Run the command; ends the process with its exit status."""
    few_arenas()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal of another encoding has no character for some names.
            stream.reconfigure(errors="backslashreplace")
    debug = "--debug" in sys.argv
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    try:
        with stoppable(), telling(lambda line: write_line(line, sys.stderr)):
            # What ends a command by itself, an interrupt among it, is returned here and not raised.
            status = app(arguments, prog_name="drillcore", standalone_mode=False)
            if status == INTERRUPTED:
                raise KeyboardInterrupt
            if status:
                sys.exit(status)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except (Exception, KeyboardInterrupt) as error:
        status, message = _ending(error)
        if debug and not isinstance(error, KeyboardInterrupt):
            message = traceback.format_exc()
        write_line("\n".join(map(_cut, message.split("\n"))), sys.stderr)
        sys.exit(status)


def _ending(error: BaseException) -> tuple[int, str]:
    """Exit status and message for what ended a command."""
    if isinstance(error, DrillcoreError):
        return error.exit_status, f"drillcore: {error}" + (f"\n  {error.hint}" if error.hint else "")
    if isinstance(error, typer.Abort | KeyboardInterrupt):
        return INTERRUPTED, "drillcore: interrupted"
    if hasattr(error, "format_message"):  # a usage error, raised by the click inside typer
        return 2, f"drillcore: {error.format_message()}"
    what = f"drillcore: unexpected {type(error).__name__}: {error}"
    return 1, f"{what}\n  This is a bug in drillcore: run again with --debug and report the output."


def _cut(line: str) -> str:
    """A line without its middle where it is very long: names and arguments are repeated in messages."""
    return line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} [...] {line[-LONGEST // 2 :]}"
