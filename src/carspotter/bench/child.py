"""One measurement, in a process of its own: `python -m carspotter.bench.child TASK`.

The task is JSON on the command line, what was measured is JSON on stdout.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from carspotter.bench.peers.clock import timed
from carspotter.loading import load


def run(task: dict[str, Any]) -> dict[str, Any]:
    """Do one task: "latency" or "bulk"."""
    spotter = load(
        task["model"], detector=task["detector"], threads=task["threads"], provider=task["provider"]
    )
    return timed(task, spotter.identify, spotter.identify_many)


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))
