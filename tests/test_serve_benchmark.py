"""The programs that load, fuzz and break the service, on a small scale."""

from __future__ import annotations

from pathlib import Path

from conftest import draw_car

from benchmarks.serve import faults, fuzz, load
from benchmarks.serve.material import cases


def test_the_cases_of_a_seed_are_the_same_ones_and_of_every_kind() -> None:
    made = list(cases(60, 3))
    assert made == list(cases(60, 3))
    assert made != list(cases(60, 4))
    assert {case.kind for case in made} == {"raw", "parts", "frame"}


def test_mutated_pictures_do_no_harm(model: Path, tmp_path: Path) -> None:
    said = fuzz.measure(150, seed=1, options=["--model", str(model)], work=tmp_path)
    assert said["wrong"] == []
    assert said["same_processes"]
    assert said["ready_afterwards"]
    assert sum(said["statuses"].values()) == 150
    assert any(status.endswith(" 200") for status in said["statuses"])
    assert any(status.endswith((" 415", " 422")) for status in said["statuses"])


def test_a_load_is_measured(model: Path, tmp_path: Path) -> None:
    photos = [tmp_path / f"{number}.jpg" for number in range(20)]
    for number, file in enumerate(photos):
        draw_car(number).save(file)
    said = load.measure(
        photos,
        model=str(model),
        rounds=1,
        seconds=1.0,
        clients=2,
        seed=0,
        options=["--threads", "1"],
        work=tmp_path,
    )
    assert said["share"] > 0
    assert set(said["four_times"]["statuses"]) <= {"200", "503"}
    assert said["half"]["statuses"].keys() <= {"200", "503"}
    assert said["ready_afterwards"]


def test_broken_off_uploads_are_measured(model: Path, tmp_path: Path) -> None:
    said = faults.measure("cut", seconds=1.0, options=["--model", str(model)], work=tmp_path)
    assert said["cut"] > 0
    assert set(said["others"]) == {"200"}
    assert (said["workers"], said["ready_afterwards"]) == (2, True)
