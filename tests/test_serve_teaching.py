"""Cars that are taught over HTTP."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from conftest import Carspotter
from serve_process import Served, parts, photo, served, wait_for
from taught_cars import OLIVE, PLUM, TEAL, model_with_space
from tiny_model import RED

from carspotter.serve.schemas import Cars, Lesson

PLUMS = parts(*((f"{n}.png", photo(PLUM, (40 + n, 40))) for n in range(3)))
NAME = "Rivian R1T Crew Cab 2022"
FIELDS = {"name": NAME, "make": "Rivian", "body": "Crew Cab", "year": "2022"}


@pytest.fixture
def garage(tmp_path: Path) -> Path:
    return tmp_path / "garage.npz"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return model_with_space(tmp_path)


@pytest.fixture
def school(tmp_path: Path, model: Path, garage: Path) -> Iterator[Served]:
    options = ("--model", model, "--garage", garage, "--allow-teaching")
    with served(tmp_path, *options) as found:
        yield found


def teach(
    service: Served, fields: dict[str, str], files: list[Any] = PLUMS
) -> tuple[int, dict[str, Any]]:
    answer = service.client.post("/v1/cars", data=fields, files=files)
    return answer.status_code, answer.json()


def label_of(client: httpx2.Client, colour: tuple[int, int, int]) -> str:
    answer = client.post("/v1/identify", content=photo(colour))
    return str(answer.json()["results"][0]["candidates"][0]["label"])


def test_a_car_is_taught_answered_listed_and_forgotten(school: Served) -> None:
    client = school.client
    assert client.get("/v1/cars").json() == {"cars": []}
    assert client.get("/v1/model").json()["garage"] == {"cars": 0}
    status, lesson = teach(school, FIELDS)
    Lesson.model_validate(lesson)
    assert (status, lesson["added"], lesson["photos"]) == (201, ["0.png", "1.png", "2.png"], 3)
    assert (lesson["make"], lesson["model"], lesson["year"]) == ("Rivian", "R1T", 2022)
    assert label_of(client, PLUM) == NAME
    assert label_of(client, RED) == "Audi S4 Sedan 2012"
    listed = client.get("/v1/cars").json()
    Cars.model_validate(listed)
    assert [(car["label"], car["photos"]) for car in listed["cars"]] == [(NAME, 3)]
    assert client.get("/v1/model").json()["garage"] == {"cars": 1}
    assert client.delete(f"/v1/cars/{NAME}").status_code == 204
    assert label_of(client, PLUM) != NAME
    again = client.delete(f"/v1/cars/{NAME}")
    assert (again.status_code, again.json()["code"]) == (404, "no_such_car")


def test_the_lesson_is_the_one_of_the_command_line(
    school: Served, tmp_path: Path, model: Path, carspotter: Carspotter
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for _, (name, content) in PLUMS:
        (folder / name).write_bytes(content)
    said = carspotter(
        "teach", NAME, folder, "--garage", tmp_path / "own.npz", "--model", model, "--json",
        "--make", "Rivian", "--body", "Crew Cab", "--year", "2022",
    )  # fmt: skip
    expected = json.loads(said.stdout)
    del expected["garage"]
    expected["added"] = [Path(name).name for name in expected["added"]]
    assert teach(school, FIELDS) == (201, expected)


def test_a_name_that_is_there_needs_add_and_add_needs_one(school: Served) -> None:
    status, problem = teach(school, {**FIELDS, "add": "true"})
    assert (status, problem["code"]) == (404, "no_such_car")
    assert teach(school, FIELDS)[0] == 201
    status, problem = teach(school, FIELDS)
    assert (status, problem["code"]) == (409, "car_exists")
    more = parts(("more.png", photo(PLUM, (60, 40))), PLUMS[0][1])
    status, lesson = teach(school, {"name": NAME, "add": "true"}, more)
    assert (status, lesson["photos"], lesson["skipped"]) == (201, 4, ["0.png"])
    status, problem = teach(school, {"name": "Audi S4 Sedan 2012"})
    assert (status, problem["code"]) == (409, "car_exists")
    assert "--" not in problem["detail"]


def test_photos_that_cannot_be_used_are_left_out(school: Served) -> None:
    bad = ("bad.png", b"no photo")
    status, lesson = teach(school, FIELDS, parts(bad, *(file for _, file in PLUMS)))
    assert (status, lesson["photos"]) == (201, 3)
    assert [(f["photo"], f["error"]["code"]) for f in lesson["failed"]] == [
        ("bad.png", "not_an_image")
    ]
    status, problem = teach(school, {"name": "Other"}, parts(bad))
    assert (status, problem["code"]) == (415, "not_an_image")
    status, problem = teach(school, {"name": "Other"}, [PLUMS[0]])
    assert (status, problem["code"]) == (422, "taught_before")
    assert len(school.client.get("/v1/cars").json()["cars"]) == 1


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, "bad_name"),
        ({"name": "  "}, "bad_name"),
        ({"name": "A\nB"}, "bad_name"),
        ({"name": NAME, "make": "Tesla"}, "bad_name"),
        ({"name": NAME, "year": "2022"}, "bad_name"),
        ({"name": NAME, "make": "Rivian", "year": "soon"}, "bad_parameter"),
        ({"name": NAME, "make": "Rivian", "year": "1" * 4000}, "bad_parameter"),
        ({"name": NAME, "add": "perhaps"}, "bad_parameter"),
        ({"name": NAME, "colour": "red"}, "unknown_part"),
    ],
)
def test_names_that_cannot_be(school: Served, fields: dict[str, str], code: str) -> None:
    status, problem = teach(school, fields)
    assert (status, problem["code"]) == (400, code)
    assert "--" not in problem["detail"]


def test_every_worker_sees_what_one_was_taught(
    tmp_path: Path, model: Path, garage: Path, carspotter: Carspotter
) -> None:
    options = ("--model", model, "--garage", garage, "--allow-teaching", "--workers", "2")
    with served(tmp_path, *options) as service:
        assert teach(service, FIELDS)[0] == 201
        for _ in range(12):  # each with a connection of its own, which any worker takes
            with httpx2.Client(base_url=service.url) as client:
                assert label_of(client, PLUM) == NAME
        done = carspotter(
            "garage", "rename", NAME, "Rivian", "--garage", garage
        )  # by another process
        assert done.returncode == 0
        for _ in range(12):
            with httpx2.Client(base_url=service.url) as client:
                assert label_of(client, PLUM) == "Rivian"


def test_a_garage_that_breaks_leaves_the_one_before(school: Served, garage: Path) -> None:
    assert teach(school, FIELDS)[0] == 201
    assert label_of(school.client, PLUM) == NAME
    whole = garage.read_bytes()
    garage.write_bytes(whole[:100])
    assert label_of(school.client, PLUM) == NAME
    status, problem = teach(school, {"name": "Other"}, parts(("o.png", photo(OLIVE))))
    assert (status, problem["code"]) == (503, "garage_unusable")
    assert str(garage) not in problem["detail"]
    wait_for(lambda: any(str(garage) in line["message"] for line in school.lines()))
    garage.write_bytes(whole)
    assert school.client.get("/v1/cars").status_code == 200


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_garage_that_cannot_be_written(school: Served, garage: Path) -> None:
    garage.parent.chmod(0o500)
    try:
        status, problem = teach(school, FIELDS)
    finally:
        garage.parent.chmod(0o700)
    assert (status, problem["code"]) == (503, "storage")


def test_a_garage_without_teaching_is_only_answered_from(
    tmp_path: Path, model: Path, garage: Path, carspotter: Carspotter
) -> None:
    file = tmp_path / "teal.png"
    file.write_bytes(photo(TEAL))
    carspotter("teach", "Teal Thing", file, "--garage", garage, "--model", model)
    with served(tmp_path, "--model", model, "--garage", garage) as service:
        assert label_of(service.client, TEAL) == "Teal Thing"
        said = service.client.get("/v1/model").json()
        assert (said["teaching"], said["garage"]) == (False, {"cars": 1})
        for method, path in itertools.product(("GET", "POST"), ("/v1/cars",)):
            assert service.client.request(method, path).status_code == 403
