"""A study in a journal that is stopped at the worst moment."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from tiny_study import rows, write_inputs

from carspotter.cli import main

RUN = "trials/*/recipe.toml"

STORED = ("--storage", "journal.log", "--study", "tiny")


@pytest.mark.filterwarnings(
    "ignore::optuna.exceptions.ExperimentalWarning",
    "ignore:Heartbeat of storage is supposed:UserWarning",
)
def test_an_interrupt_while_the_journal_is_given_back_is_an_interrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARSPOTTER_CACHE", str(tmp_path / "cache"))
    inputs = write_inputs(tmp_path)
    out, journal, unlink = tmp_path / "study", tmp_path / "journal.log", os.unlink
    interrupts: list[str] = []

    def interrupted(path: Any, *arguments: Any, **options: Any) -> None:
        unlink(path, *arguments, **options)
        is_mine = threading.current_thread() is threading.main_thread()
        # Not before the trial is under way: its run folder is there.
        if not interrupts and is_mine and str(path).endswith(".rename") and list(out.glob(RUN)):
            interrupts.append(str(path))
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "unlink", interrupted)
    monkeypatch.setattr(sys, "argv", ["carspotter", *map(str, inputs.command(out, 1)), *STORED])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code not in (0, 2)
    assert len(interrupts) == 1
    assert journal.is_file()
    found = [(row["outcome"], row["note"]) for row in rows(out)]
    assert found == [("lost", "stopped: KeyboardInterrupt")]
