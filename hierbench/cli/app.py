"""The command line as a whole: its commands, its errors and its exit codes."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated

import typer

from hierbench.cli import (
    board,
    claims,
    compare,
    convert,
    describe,
    doctor,
    evaluate,
    hierarchy,
    listing,
    plot,
    pretrain,
    replay,
    submit,
    sweep,
    table,
    train,
)
from hierbench.errors import ExitCode, HierbenchError

app = typer.Typer(
    name="hierbench",
    help="Robust accuracy of vision-language models at every depth of a class tree.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from hierbench import __version__

        typer.echo(f"hierbench {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", is_eager=True, callback=_version)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; works anywhere.")] = False,
) -> None:
    pass


evaluate.add_to(app)
train.add_to(app)
convert.add_to(app)
pretrain.add_to(app)
listing.add_to(app)
hierarchy.add_to(app)
describe.add_to(app)
table.add_to(app)
claims.add_to(app)
compare.add_to(app)
plot.add_to(app)
replay.add_to(app)
submit.add_to(app)
board.add_to(app)
sweep.add_to(app)
doctor.add_to(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave the process with one of ``ExitCode``."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    code = run([a for a in given if a != "--debug"], debug=debug)
    sys.exit(code)


def run(arguments: Sequence[str], *, debug: bool = False) -> int:
    """Run one command and return its exit code; an error is one line on stderr, and its traceback with ``debug``."""
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        return _run(arguments, debug=debug)


def _run(arguments: Sequence[str], *, debug: bool) -> int:
    try:
        result = app(args=list(arguments), prog_name="hierbench", standalone_mode=False)
        sys.stdout.flush()
        # newer versions of typer turn Ctrl-C into this code themselves, without a word
        return _interrupted() if result == ExitCode.INTERRUPTED else int(result or ExitCode.DONE)
    except KeyboardInterrupt:
        return _interrupted()
    except HierbenchError as error:
        if debug:
            raise
        return _fail(str(error), error.exit_code)
    except BrokenPipeError:  # the reader of our output, such as head, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.DONE
    except Exception as error:  # noqa: BLE001 - the last resort: one line instead of a traceback
        return _last_resort(error, debug=debug)


def _last_resort(error: Exception, *, debug: bool) -> int:
    # typer brings click along under several names, so its errors are known by what they can do
    if isinstance(error, typer.Exit):
        return error.exit_code
    if isinstance(error, typer.Abort):
        return _interrupted()
    message = getattr(error, "format_message", None)
    if callable(message):
        # bare `hierbench` shows its help
        if type(error).__name__ == "NoArgsIsHelpError":
            typer.echo(message())
            return ExitCode.BAD_INPUT
        return _fail(str(message()), ExitCode.BAD_INPUT)
    if debug:
        raise error
    return _fail(f"{type(error).__name__}: {error} (--debug shows where)", ExitCode.FAILED)


def _interrupted() -> int:
    return _fail("interrupted; the same command goes on where it stopped", ExitCode.INTERRUPTED)


def _fail(message: str, code: ExitCode) -> int:
    line = " ".join(message.split())
    typer.echo(f"hierbench: error: {line}", err=True)
    return code


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: object = None,
) -> None:
    """Print our own warnings as one line; those of libraries would only bury them."""
    from hierbench.evaluation.storage import DamagedFileWarning

    if issubclass(category, DamagedFileWarning):
        typer.echo(f"hierbench: warning: {' '.join(str(message).split())}", err=True)
