"""The command line: each verb parses, calls, prints."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Entry point of the `carspotter` command."""
    from carspotter.cli.app import app_for
    from carspotter.errors import CarspotterError, ExportError

    try:
        app_for(sys.argv[1:])(prog_name="carspotter")
    except CarspotterError as error:
        print(f"carspotter: {error}", file=sys.stderr)
        sys.exit(1 if isinstance(error, ExportError) else 2)
    except BrokenPipeError:
        # The reader of a pipe went away (`| head`): not an error. Python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        # A full disk below stdout and the like.
        print(f"carspotter: {error}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
