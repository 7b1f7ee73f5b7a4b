"""One measurement of one peer: `python run.py PEER TASK`; the task is JSON, and so is the answer.

It runs as a script, by the Python of the peers' environment, which has no carspotter: its
neighbours are imported from its own folder.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys


def main(peer: str, text: str) -> None:
    """Measure, and print one line of JSON."""
    task = json.loads(text)
    with contextlib.redirect_stdout(sys.stderr):  # what a peer prints is no answer
        clock = importlib.import_module("clock")
        one, many = importlib.import_module(peer).load(task)
        found = clock.timed(task, one, many)
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
