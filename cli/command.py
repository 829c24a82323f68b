"""What every command shares: errors become one line and a named exit code."""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import typer

P = ParamSpec("P")
R = TypeVar("R")


def command(function: Callable[P, R]) -> Callable[P, R]:
    """Turn millrace errors and Ctrl-C into an exit code; a `--json` command's error is JSON."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        from millrace.core.errors import ExitCode, MillraceError

        try:
            with _terminable():
                return function(*args, **kwargs)
        except MillraceError as error:
            report(error, as_json=bool(kwargs.get("as_json")))
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            print("millrace: interrupted", file=sys.stderr)
            # Where it came in the middle of exec() of a string (dataclasses do that), Python would
            # end `python -m` by SIGINT, whatever the exit code; another exec() takes that back.
            exec("")
            raise typer.Exit(ExitCode.INTERRUPTED) from None
        except (typer.Exit, typer.Abort):
            raise
        except BrokenPipeError:
            # The reader of our output has gone (`millrace results … | head`).
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except Exception as error:
            if os.environ.get("MILLRACE_LOG_LEVEL") == "debug":
                traceback.print_exc()
            bug = MillraceError(
                f"unexpected {type(error).__name__}: {error}",
                hint="this is a bug; MILLRACE_LOG_LEVEL=debug shows where",
            )
            report(bug, as_json=bool(kwargs.get("as_json")))
            raise typer.Exit(ExitCode.INTERNAL) from None

    return wrapper


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM does what Ctrl-C does, so that what is half done is taken back."""
    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    if ours:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def refuse_silence(what: str, *, yes: bool, as_json: bool) -> None:
    """Raise UsageError where there is nobody who could be asked whether to `what`."""
    from millrace.core.errors import UsageError

    if not yes and (as_json or not sys.stdin.isatty()):
        raise UsageError(f"there is nobody to ask whether to {what}: add --yes")


def confirm(question: str, *, otherwise: str) -> None:
    """Ask on the terminal. Without a yes, say what that comes to and exit as interrupted."""
    from millrace.core.errors import ExitCode

    try:
        if typer.confirm(question, err=True):
            return
    except typer.Abort:  # Ctrl-C, or the end of input
        print(file=sys.stderr)
    print(f"millrace: {otherwise}", file=sys.stderr)
    raise typer.Exit(ExitCode.INTERRUPTED)


def report(error: Any, *, as_json: bool) -> None:
    """Print an error on standard error: one line, and a hint where there is one."""
    if as_json:
        body = {"code": error.code, "message": error.message, "hint": error.hint}
        print(json.dumps({"error": body}), file=sys.stderr)
        return
    print(f"millrace: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"  {error.hint}", file=sys.stderr)


def on_command_line(ctx: typer.Context, name: str) -> bool:
    """Whether an option was said there, and not by the environment or its default."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def print_json(value: Any) -> None:
    """A value as indented JSON on standard output; times in RFC 3339."""
    import orjson

    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode() + "\n")
