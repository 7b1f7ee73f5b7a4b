"""The command line: each verb parses, calls, prints."""

from __future__ import annotations

import gc
import io
import os
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn


def main() -> None:
    """Entry point of the `carspotter` command."""
    brief = sys.argv[1:2] == ["identify"]
    if brief:
        # The collector would go through all that is imported many times, and find nothing. Garbage
        # is still collected, in larger lots.
        gc.set_threshold(100_000)
    code = run(sys.argv[1:])
    if brief:
        _leave(code)
    sys.exit(code)


def run(arguments: Sequence[str]) -> int | str | None:
    """Run a verb, and say what its process is to end with, as `sys.exit` takes it.

    What it printed has reached stdout by then, or the exit code says that it has not.
    """
    from carspotter.cli.app import app_for
    from carspotter.errors import CarspotterError, ExportError, PhotoError

    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file name need not be UTF-8; it is printed with escapes, and the run goes on.
        sys.stdout.reconfigure(errors="backslashreplace")
    # carspotter has a bound of its own; Pillow warns below it.
    warnings.filterwarnings("ignore", "Image size .* exceeds limit", RuntimeWarning)
    # Of damaged metadata and the like: nothing that the photo's owner could do, nor needs to.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    try:
        try:
            app_for(arguments)(args=list(arguments), prog_name="carspotter")
        except SystemExit as ended:
            _flush()
            return ended.code
        return 0
    except CarspotterError as error:
        print(f"carspotter: {error}", file=sys.stderr)
        return 1 if isinstance(error, (ExportError, PhotoError)) else 2
    except BrokenPipeError:
        # The reader of a pipe went away (`| head`): not an error. Python would complain at exit.
        _let_go_of_stdout()
        return 1
    except OSError as error:
        # A full disk below stdout and the like.
        print(f"carspotter: {error}", file=sys.stderr)
        _let_go_of_stdout()
        return 1


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _let_go_of_stdout() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _leave(code: int | str | None) -> NoReturn:
    """End at once: what the system frees by itself need not be taken apart object by object.

    That is a tenth of a cold start. Nothing is left to do: the verb has closed its files and ended
    its threads.
    """
    if sys.stderr is not None:
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)
