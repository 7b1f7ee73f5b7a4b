"""How many cores a process may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from carspotter.machine import cores

V1 = {"cpu.cfs_quota_us": "{}\n", "cpu.cfs_period_us": "100000\n"}
V2 = {"cpu.max": "{} 100000\n"}


@pytest.mark.parametrize(
    ("own", "folder", "files", "quota", "expected"),
    [
        ("0::/", "", V2, "200000", 2),
        ("0::/", "", V2, "250000", 3),
        ("0::/", "", V2, "1000", 1),
        ("0::/", "", V2, "max", 8),
        ("0::/", "", V2, "9900000", 8),
        ("0::/", "", {"cpu.max": "{}"}, "nonsense", 8),
        ("0::/system.slice/cars.service", "system.slice/cars.service", V2, "150000", 2),
        ("0::/system.slice/cars.service", "system.slice", V2, "150000", 2),
        ("0::/other.slice", "system.slice", V2, "150000", 8),
        ("3:cpuset:/\n2:cpu,cpuacct:/docker/0a1b", "cpu", V1, "300000", 3),
        ("1:cpu:/cars", "cpu/cars", V1, "300000", 3),
        ("1:cpu:/", "cpu", V1, "-1", 8),
        (None, "", V2, "200000", 8),
    ],
)
def test_a_share_of_the_time_counts_as_cores(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    own: str | None,
    folder: str,
    files: dict[str, str],
    quota: str,
    expected: int,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    groups = tmp_path / "groups"
    (groups / folder).mkdir(parents=True)
    for name, text in files.items():
        (groups / folder / name).write_text(text.format(quota))
    if own is not None:
        (tmp_path / "own").write_text(f"{own}\n")
    assert cores(groups, tmp_path / "own") == expected


def test_taskset_counts_where_no_share_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3}, raising=False)
    assert cores() == 1
