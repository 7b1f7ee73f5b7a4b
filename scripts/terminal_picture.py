"""Draw what a command prints, as an SVG of a terminal.

Example: python scripts/terminal_picture.py docs/identify.svg carspotter identify photos/
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text


def main() -> None:
    out, command = Path(sys.argv[1]), sys.argv[2:]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    console = Console(record=True, width=80, file=sys.stderr, force_terminal=True)
    console.print(Text(f"$ {shlex.join(command)}", style="bold"))
    console.print(Text(done.stdout.rstrip()))
    out.write_text(console.export_svg(title="carspotter"), encoding="utf-8")


if __name__ == "__main__":
    main()
