"""What README and docs point to is in the repository."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

LINK = re.compile(r"\]\(([^)\s#]+)[^)]*\)")


@pytest.fixture(scope="module")
def in_repository() -> set[Path]:
    """Files that are committed, or would be by `git add .`, and their folders."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    files = {ROOT / name for name in listed.split("\0") if name}
    return files | {parent for file in files for parent in file.parents}


def test_links_lead_somewhere(in_repository: set[Path]) -> None:
    texts = [path for path in in_repository if path.suffix == ".md" and path.is_file()]
    assert ROOT / "README.md" in texts
    links = [
        (text, (text.parent / link).resolve())
        for text in texts
        for link in LINK.findall(text.read_text(encoding="utf-8"))
        if "://" not in link
    ]
    assert len(links) > 10
    lost = [f"{text.relative_to(ROOT)}: {to}" for text, to in links if to not in in_repository]
    assert lost == []
