"""`evaluate --report` and `compare`: files, figures and the page, from outside."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_model
from cli_checks import complaint
from conftest import Carspotter
from tiny_model import BLUE, GREEN, LABELS, RED, plain

from carspotter.evaluate.recorded import read_recorded

COLOURS = {LABELS[0]: RED, LABELS[1]: GREEN, LABELS[2]: BLUE}


def colour_model(file: Path, order: tuple[int, int, int] = (0, 1, 2)) -> Path:
    """A model to which red, green and blue are the classes of these numbers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_model, "WEIGHTS", 9 * np.eye(4, dtype=np.float32)[list(order)])
        return tiny_model.write(file)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def data(place: Path) -> Path:
    """Eight pictures of three classes: one green "red" car, and one that is no picture."""
    root = place / "photos"
    for label, colour in COLOURS.items():
        folder = root / "test" / label
        folder.mkdir(parents=True)
        for number in range(3):
            plain(colour, (40 + number, 32)).save(folder / f"{number}.png")
    plain(GREEN).save(root / "test" / LABELS[0] / "odd.png")
    (root / "test" / LABELS[2] / "2.png").write_text("no picture")
    return root


@pytest.fixture(scope="module")
def report(place: Path, data: Path, carspotter: Carspotter) -> Path:
    """The report of the model that sees colours as they are."""
    model = colour_model(place / "good.onnx")
    out = place / "report"
    done = carspotter(
        "evaluate", model, "--data", data, "--report", out, "--robustness", 4, "--json"
    )
    assert done.returncode == 1, done.stderr  # one picture could not be read
    assert json.loads(done.stdout) == read(out)
    return out


@pytest.fixture(scope="module")
def other(place: Path, data: Path, carspotter: Carspotter) -> Path:
    """The report of a model that takes blue for green and green for blue."""
    model = colour_model(place / "swapped.onnx", (0, 2, 1))
    out = place / "other"
    done = carspotter("evaluate", model, "--data", data, "--report", out)
    assert done.returncode == 1, done.stderr
    assert str(out / "report.html") in done.stdout
    return out


def read(report: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((report / "metrics.json").read_text())
    return found


# --- the files -----------------------------------------------------------------------------------


def test_figures_are_those_of_the_pictures(report: Path) -> None:
    found = read(report)
    assert found["format_version"] == 2
    assert found["data"]["pictures"] == 9 - 1 + 1
    exact = found["metrics"]["exact"]
    assert exact["top1"] == pytest.approx(8 / 9)
    assert exact["macro_recall"] == pytest.approx((3 / 4 + 1 + 1) / 3)
    assert exact["macro_precision"] == pytest.approx((1 + 3 / 4 + 1) / 3)
    low, high = exact["interval"]["top1"]
    assert low < exact["top1"] <= high
    # The odd one is another year of the same model: at that level it is right.
    assert found["metrics"]["model"]["top1"] == 1
    assert list(found["broken"]) == [f"test/{LABELS[2]}/2.png"]
    assert found["most_confused"] == [{"classes": [LABELS[0], LABELS[1]], "mistaken": [1, 0]}]
    by_class = {one["name"]: one for one in found["by_class"]}
    assert by_class[LABELS[0]]["recall"] == pytest.approx(3 / 4)
    assert by_class[LABELS[3]]["pictures"] == 0
    assert by_class[LABELS[3]]["recall_interval"] is None
    (make,) = found["by_make"]
    assert (make["name"], make["pictures"], make["part"]) == ("Audi", 9, 1)
    assert found["answers"]["exact"]["share"] == 1
    assert found["answers"]["right_of_answered"] == pytest.approx(8 / 9)
    assert found["speed"]["single_ms"] > 0
    assert found["model"]["bytes"] > 1000


def test_figures_of_worse_pictures(report: Path) -> None:
    found = read(report)["robustness"]
    assert found["pictures"] == 4
    assert {"noise", "JPEG", "rain"} <= set(found["top1"])
    assert all(len(values) == 5 for values in found["top1"].values())
    # A colour stays the same colour where it is blurred, and is lost in the dark.
    assert set(found["top1"]["blur"]) == {found["clean"]}


def test_every_picture_is_recorded(report: Path) -> None:
    table = pq.read_table(report / "predictions.parquet")
    assert table.num_rows == 9
    rows = {row["picture"]: row for row in table.to_pylist()}
    odd = rows[f"test/{LABELS[0]}/odd.png"]
    assert (odd["label"], odd["top5"][0], odd["split"]) == (LABELS[0], LABELS[1], "test")
    assert (odd["level"], odd["answer"]) == ("exact", LABELS[1])
    assert odd["confidence"] == pytest.approx(odd["top5_probabilities"][0])
    assert odd["margin"] == pytest.approx(
        odd["top5_probabilities"][0] - odd["top5_probabilities"][1], abs=1e-6
    )
    # Logits are 9 for the colour and 0 for the rest.
    assert odd["max_logit"] == pytest.approx(9, abs=1e-5)
    assert odd["energy"] == pytest.approx(-np.log(np.exp(9) + 3), abs=1e-5)
    p = np.array(odd["probabilities"])
    assert p.sum() == pytest.approx(1)
    assert odd["entropy"] == pytest.approx(float(-(p * np.log(p)).sum()), abs=1e-6)
    again = read_recorded(report)
    assert again.class_names == LABELS
    assert again.about["model"]["name"] == "tiny"


def test_page_stands_alone(report: Path) -> None:
    page = (report / "report.html").read_text()
    outside = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", outside)
    assert not re.findall(r"""<script[^>]+src""", page)
    assert "default-src 'none'" in page
    assert page.count("data:image/jpeg") >= 3
    assert 'class="double"' in page  # the worst error with its heat map
    for text in ("88.89 %", LABELS[0], "odd.png", "ECE", "rain", "not an image"):
        assert text in page


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.mark.parametrize("width", [390, 1280])
def test_page_opens_in_a_browser(report: Path, browser: Any, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800})
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto((report / "report.html").as_uri())
    page.wait_for_selector("#confusion .heatmaplayer image")
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [
        (report / "report.html").as_uri()
    ]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


# --- compare -------------------------------------------------------------------------------------


def test_two_models_side_by_side(
    report: Path, other: Path, carspotter: Carspotter, tmp_path: Path
) -> None:
    out = tmp_path / "both"
    done = carspotter("compare", report, other, "--json", "--report", out)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == json.loads((out / "compare.json").read_text())
    (pair,) = found["pairs"]
    assert (pair["both_right"], pair["first_only"], pair["second_only"], pair["both_wrong"]) == (
        3,
        5,
        0,
        1,
    )
    assert pair["gain"] == pytest.approx(-5 / 9)
    assert pair["p_value"] == pytest.approx(2 / 2**5)
    assert [(c["name"], c["pictures"], c["first_only"]) for c in pair["classes"]] == [
        (LABELS[1], 3, 3),
        (LABELS[2], 2, 2),
    ]
    names = [model["name"] for model in found["models"]]
    assert names == [f"tiny ({report})", f"tiny ({other})"]
    page = (out / "compare.html").read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", page)
    for text in ("-55.56", LABELS[1], "McNemar"):
        assert text in page
    shown = carspotter("compare", report, other)
    assert "-55.56 points" in shown.stdout
    assert LABELS[1] in shown.stdout


def test_same_pictures_in_another_order_are_the_same(
    report: Path, other: Path, carspotter: Carspotter, tmp_path: Path
) -> None:
    table = pq.read_table(other / "predictions.parquet")
    turned = tmp_path / "turned"
    turned.mkdir()
    pq.write_table(table.take(list(range(9))[::-1]), turned / "predictions.parquet")
    straight, reverse = (
        json.loads(carspotter("compare", report, side, "--json").stdout)["pairs"][0]
        for side in (other, turned)
    )
    assert {**straight, "second": ""} == {**reverse, "second": ""}


def changed(report: Path, out: Path, **columns: Any) -> Path:
    """A report whose predictions have other columns."""
    out.mkdir()
    table = pq.read_table(report / "predictions.parquet")
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    pq.write_table(table, out / "predictions.parquet")
    return out


def test_what_cannot_be_compared(
    report: Path, other: Path, carspotter: Carspotter, tmp_path: Path
) -> None:
    table = pq.read_table(other / "predictions.parquet")
    keys = table["picture"].to_pylist()
    labels = table["label"].to_pylist()
    count = table.num_rows
    width = len(LABELS)
    nan = pa.FixedSizeListArray.from_arrays(
        pa.array(np.full(count * width, np.nan, np.float32)), width
    )
    empty = tmp_path / "empty"
    empty.mkdir()
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "predictions.parquet").write_bytes(b"PAR1 and then nothing")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    pq.write_table(pa.table({"a": [1]}), foreign / "predictions.parquet")
    cases = {
        empty: "evaluate … --report",
        damaged: "cannot be read|can be read",
        foreign: "can be read|not written by",
        changed(other, tmp_path / "keys", picture=["test/new.png", *keys[1:]]): "same pictures",
        changed(other, tmp_path / "labels", label=[labels[-1], *labels[1:]]): "same labels",
        changed(other, tmp_path / "twice", picture=[keys[1], *keys[1:]]): "twice",
        changed(other, tmp_path / "strange", label=["Lada", *labels[1:]]): "not among its classes",
        changed(other, tmp_path / "nan", probabilities=nan): "no numbers",
        report: "given twice",
    }
    for case, said in cases.items():
        message = complaint(carspotter("compare", report, case))
        assert re.search(said, message), message
        if case != report:
            assert str(case) in message
    assert "two reports" in complaint(carspotter("compare", report))


# --- what cannot be evaluated --------------------------------------------------------------------


def test_logits_that_are_no_numbers(
    data: Path, carspotter: Carspotter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny_model, "WEIGHTS", np.full((3, 4), np.nan, np.float32))
    model = tiny_model.write(tmp_path / "nan.onnx")
    out = tmp_path / "report"
    message = complaint(carspotter("evaluate", model, "--data", data, "--report", out))
    assert "no numbers for 9 of 9" in message
    assert not out.exists()


def test_labels_that_the_model_does_not_know(
    report: Path, place: Path, carspotter: Carspotter, tmp_path: Path
) -> None:
    root = tmp_path / "lada"
    for label in ("Lada Niva SUV 1977", LABELS[0]):
        folder = root / "test" / label
        folder.mkdir(parents=True)
        plain(RED).save(folder / "0.png")
    message = complaint(carspotter("evaluate", place / "good.onnx", "--data", root))
    assert "Lada Niva" in message
    assert "no split 'val'" in complaint(
        carspotter("evaluate", place / "good.onnx", "--data", root, "--split", "val")
    )


def test_an_earlier_report_outlives_a_failed_one(
    report: Path, data: Path, carspotter: Carspotter, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    shutil.copytree(report, kept)
    before = {file.name: file.read_bytes() for file in kept.iterdir()}
    complaint(carspotter("evaluate", "gone.onnx", "--data", data, "--report", kept))
    assert {file.name: file.read_bytes() for file in kept.iterdir()} == before
