"""The command line: arguments, printing, exit status. The only part that prints, and the only one that exits."""

from __future__ import annotations

import functools
import inspect
import io
import os
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Any, TextIO

import typer

from drillcore.cli import helps
from drillcore.cli.arguments import Debug, Quiet, Verbose
from drillcore.cli.commands import machine, planning, reading, starting
from drillcore.cli.commands.running import STAGE_COMMANDS, append
from drillcore.cli.completing import COMPLETERS
from drillcore.cli.loudness import ask, loudness, say_detail, speaking
from drillcore.cli.tables import OutputClosed, flush_output, write_line
from drillcore.cli.usage import usage_message
from drillcore.errors import DrillcoreError
from drillcore.system.logs import quiet_libraries
from drillcore.system.machine import few_arenas
from drillcore.system.signals import stoppable

app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Last-token hidden states of every layer of language models: extract, measure, project, render.",
    epilog="`drillcore COMMAND --help` shows a command's options, an example, and what its exit status says.",
)

# Options of every command, which may stand before its name too.
COMMON = {"quiet": Quiet, "verbose": Verbose, "debug": Debug}
# Exit status of a command that was interrupted.
INTERRUPTED = 130
# Exit status of a command whose reader closed the pipe, such as `head`: what the shell gives for any other program.
CLOSED = 141
# Characters of one line of a message.
LONGEST = 2000


def _show_version(wanted: bool) -> None:
    if wanted:
        import platform

        from drillcore.system.versions import installed_versions

        number = installed_versions(["drillcore"]).get("drillcore", "of unknown version")
        write_line(f"drillcore {number} (Python {platform.python_version()})")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _before_command(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    ask(quiet=quiet, verbose=verbose, debug=debug)
    if context.invoked_subcommand is None:
        write_line(context.get_help(), sys.stderr)
        raise typer.Exit(2)


def _register(function: Callable[..., None], name: str, described: str | None = None) -> None:
    """Make a function a command, with the options that all have, its completions and the end of its help."""

    @functools.wraps(function)
    def command(**given: Any) -> None:
        ask(**{option: given.pop(option) for option in COMMON})
        function(**given)
        flush_output()

    signature = inspect.signature(function, eval_str=True)
    parameters = [_completed(name, parameter) for parameter in signature.parameters.values()]
    common = [
        inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=o) for n, o in COMMON.items()
    ]
    vars(command)["__signature__"] = signature.replace(parameters=[*parameters, *common])
    app.command(name, help=described, short_help=helps.SHORT.get(name), epilog=helps.ending(name))(command)


def _completed(command: str, parameter: inspect.Parameter) -> inspect.Parameter:
    """A parameter, and what the shell offers for it where that is known."""
    completer = COMPLETERS.get((command, parameter.name))
    if completer is not None:
        for described in parameter.annotation.__metadata__:
            described.autocompletion = completer
    return parameter


for _start in (starting.init, starting.demo):
    _register(_start, _start.__name__)
for _name, (_command, _help) in STAGE_COMMANDS.items():
    _register(_command, _name, _help)
for _command in (
    append,
    planning.plan,
    reading.show,
    reading.export,
    reading.compare,
    reading.push,
    reading.rm,
    reading.mv,
    reading.merge,
    reading.verify,
    machine.bench,
    machine.doctor,
    machine.demo_model,
    machine.schema,
):
    _register(_command, _command.__name__.replace("_", "-"))


def main() -> None:
    """Run the command; ends the process with its exit status."""
    few_arenas()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal of another encoding has no character for some names.
            stream.reconfigure(errors="backslashreplace")
    with speaking():
        try:
            with stoppable(), quiet_libraries(say_detail):
                # What ends a command by itself, an interrupt among it, is returned here and not raised.
                status = app(sys.argv[1:], prog_name="drillcore", standalone_mode=False)
                if status == INTERRUPTED:
                    raise KeyboardInterrupt
        except typer.Exit as stop:
            status = stop.exit_code
        except (Exception, KeyboardInterrupt) as error:
            status = _end(error)
    if status:
        sys.exit(status)


def _end(error: BaseException) -> int:
    """Say what ended a command; returns its exit status."""
    status, message = _ending(error)
    if loudness().debug and not isinstance(error, KeyboardInterrupt):
        message = traceback.format_exc()
    if isinstance(error, OutputClosed):
        _give_up(sys.stdout)
    try:
        if message:
            write_line("\n".join(map(_cut, message.split("\n"))), sys.stderr)
    except OutputClosed:
        _give_up(sys.stderr)
    return status


def _give_up(stream: TextIO) -> None:
    """Let what is left of a stream that cannot be written go nowhere: Python would complain of it at its end."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        return


def _ending(error: BaseException) -> tuple[int, str]:
    """Exit status and message for what ended a command."""
    if isinstance(error, OutputClosed):
        return (CLOSED, "") if error.by_reader else (1, f"drillcore: {error}")
    if isinstance(error, DrillcoreError):
        return error.exit_status, f"drillcore: {error}" + (f"\n  {error.hint}" if error.hint else "")
    if isinstance(error, typer.Abort | KeyboardInterrupt):
        return INTERRUPTED, "drillcore: interrupted"
    if hasattr(error, "format_message"):  # a usage error, raised by the click inside typer
        return 2, usage_message(error)
    what = f"drillcore: unexpected {type(error).__name__}: {error}"
    return 1, f"{what}\n  This is a bug in drillcore: run again with --debug and report the output."


def _cut(line: str) -> str:
    """A line without its middle where it is very long: names and arguments are repeated in messages."""
    return line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} [...] {line[-LONGEST // 2 :]}"
