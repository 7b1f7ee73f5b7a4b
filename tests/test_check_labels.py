"""Likely label errors: what is found, and predictions that cannot be used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cli_checks import complaint
from conftest import Carspotter
from scenery import NAMES, clean

import carspotter as package
from carspotter.data import open_data_set
from carspotter.decide import softmax
from carspotter.evaluate import predict
from carspotter.evaluate.label_errors import likely_label_errors

if TYPE_CHECKING:
    from numpy.typing import NDArray


def broken_labels(
    targets: NDArray[np.int64], classes: int, share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Labels, some of them exchanged for any other class at random."""
    rng = np.random.default_rng(seed)
    wrong = np.zeros(len(targets), bool)
    wrong[rng.choice(len(targets), round(share * len(targets)), replace=False)] = True
    moved = (targets + rng.integers(1, classes, len(targets))) % classes
    return np.where(wrong, moved, targets), wrong


def recall_and_precision(found: NDArray[np.int64], wrong: NDArray[np.bool_]) -> tuple[float, float]:
    return wrong[found].sum() / wrong.sum(), wrong[found].mean()


def simulated(seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """A calibrated classifier of 20 classes that is right on about 87 % of 3,000 pictures."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.0, (3000, 20)).astype(np.float32)
    logits[np.arange(3000), rng.integers(0, 20, 3000)] += rng.gamma(9.0, 0.75, 3000)
    probabilities = softmax(logits)
    # Calibrated: the labels are drawn by the probabilities themselves.
    drawn = rng.random((3000, 1)) > probabilities.cumsum(axis=1)
    targets = np.minimum(drawn.sum(axis=1), 19).astype(np.int64)
    assert 0.8 < (probabilities.argmax(axis=1) == targets).mean() < 0.95
    return probabilities, targets


@pytest.mark.parametrize("seed", range(3))
def test_broken_labels_are_found(seed: int) -> None:
    probabilities, targets = simulated(seed)
    labels, wrong = broken_labels(targets, 20, 0.05, seed)
    found = likely_label_errors(probabilities, labels)
    recall, precision = recall_and_precision(found, wrong)
    assert recall >= 0.8
    assert precision >= 0.5
    best = found[: wrong.sum() // 2]
    assert wrong[best].mean() > precision  # the most suspicious come first


def test_real_broken_labels_are_found(stanford: Path) -> None:
    """On test pictures, which the embedded model has not seen; it chooses nothing by them."""
    spotter = package.load()
    names = [car.label for car in spotter.card.classes]
    pictures = open_data_set(stanford).split("test")[::4]
    found = predict(pictures, names, spotter.logits, size=spotter.card.input_size)
    probabilities = softmax(found.logits / np.float32(spotter.card.temperature))
    labels, wrong = broken_labels(found.targets, len(names), 0.05, 0)
    recall, precision = recall_and_precision(likely_label_errors(probabilities, labels), wrong)
    assert recall >= 0.8
    assert precision >= 0.5


def test_classes_may_be_without_a_picture() -> None:
    probabilities, targets = simulated(0)
    kept = targets < 7
    labels, wrong = broken_labels(targets[kept], 7, 0.05, 0)
    recall, precision = recall_and_precision(
        likely_label_errors(probabilities[kept], labels), wrong
    )
    assert precision >= 0.5
    assert recall >= 0.5  # fewer are counted: for the absent classes nothing is known


def test_too_little_to_judge() -> None:
    assert likely_label_errors(np.zeros((0, 3)), np.zeros(0, np.int64)).size == 0
    one = np.array([[0.9, 0.1], [0.2, 0.8]])
    assert likely_label_errors(one, np.array([1, 1])).size == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p, t: (np.where(p == p.max(), np.nan, p), t), "no numbers"),
        (lambda p, t: (p - 0.5, t), "outside of 0 to 1"),
        (lambda p, t: (p[:, :3], t), "labels outside of 0 to 2"),
        (lambda p, t: (p, t[:5]), "shapes do not fit"),
    ],
)
def test_probabilities_that_are_none(
    change: Callable[[Any, Any], tuple[Any, Any]], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        likely_label_errors(*change(*simulated(0)))


# --- by the command line -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clean(tmp_path_factory.mktemp("data") / "cars", train=2, test=12)


def write_predictions(
    file: Path, rows: dict[str, list[Any]], about: dict[str, Any] | None = None
) -> Path:
    """As `evaluate --report` writes them; without classes in the metadata where there are none."""
    columns: dict[str, Any] = dict(rows)
    width = len(columns["probabilities"][0])
    columns["probabilities"] = pa.array(
        columns["probabilities"], pa.list_(pa.float32(), width or -1)
    )
    about = {"class_names": list(NAMES), "format_version": 1} if about is None else about
    table = pa.table(columns).replace_schema_metadata({"carspotter": json.dumps(about)})
    pq.write_table(table, file)
    return file


def good_rows(root: Path) -> dict[str, list[Any]]:
    """Predictions that are sure of every label but the first."""
    pictures = open_data_set(root).split("test")
    rows: dict[str, list[Any]] = {"picture": [], "split": [], "label": [], "probabilities": []}
    for place, picture in enumerate(pictures):
        number = NAMES.index(picture.label)
        sure = 0.9 + 0.003 * place
        right = [1 - sure, sure] if number else [sure, 1 - sure]
        rows["picture"].append(picture.key)
        rows["split"].append("test")
        rows["label"].append(picture.label)
        rows["probabilities"].append(right if place else [0.02, 0.98])
    return rows


def test_suspects_are_listed(data: Path, tmp_path: Path, carspotter_here: Carspotter) -> None:
    rows = good_rows(data)
    file = write_predictions(tmp_path / "p.parquet", rows)
    done = carspotter_here("data", "check", data, "--predictions", file, "--json")
    assert done.returncode == 0, done.stderr
    labels = json.loads(done.stdout)["labels"]
    assert labels["pictures"] == {"test": 24}
    assert labels["suspects"] == [
        {
            "picture": rows["picture"][0],
            "split": "test",
            "label": NAMES[0],
            "probability": 0.02,
            "guess": NAMES[1],
            "guess_probability": 0.98,
        }
    ]
    report = tmp_path / "report"
    text = carspotter_here("data", "check", data, "--predictions", file, "--report", report, "-q")
    assert f"likely label errors (1):\n  {rows['picture'][0]}: {NAMES[0]}" in text.stdout
    html = (report / "check.html").read_text()
    assert "Likely label errors (1)" in html
    assert html.count("<img ") == 1


def test_the_label_in_the_data_set_counts(
    data: Path, tmp_path: Path, carspotter_here: Carspotter
) -> None:
    """Labels that were put right since are right."""
    rows = good_rows(data)
    rows["label"][3] = NAMES[1]
    file = write_predictions(tmp_path / "p.parquet", rows)
    done = carspotter_here("data", "check", data, "--predictions", file, "--json")
    assert len(json.loads(done.stdout)["labels"]["suspects"]) == 1


def other_keys(rows: dict[str, list[Any]]) -> None:
    rows["picture"] = [f"test/{place:05d}.jpg" for place in range(24)]


def other_labels(rows: dict[str, list[Any]]) -> None:
    rows["label"] = [NAMES[1 - NAMES.index(label)] for label in rows["label"]]


def no_number(rows: dict[str, list[Any]]) -> None:
    rows["probabilities"][5] = [float("nan"), 0.5]


def too_large(rows: dict[str, list[Any]]) -> None:
    rows["probabilities"][5] = [3.0, -2.0]


def too_short(rows: dict[str, list[Any]]) -> None:
    rows["probabilities"] = [row[:1] for row in rows["probabilities"]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (other_keys, "predictions of another data set: 24 of its 24 pictures are not in"),
        (other_labels, "predictions of another data set: 24 of its 24 pictures have other labels"),
        (no_number, "probabilities that are no numbers"),
        (too_large, "probabilities outside of 0 to 1"),
        (too_short, "rows of another length than its classes"),
    ],
)
def test_predictions_that_do_not_fit(
    data: Path,
    tmp_path: Path,
    carspotter_here: Carspotter,
    change: Callable[[dict[str, list[Any]]], None],
    said: str,
) -> None:
    rows = good_rows(data)
    change(rows)
    file = write_predictions(tmp_path / "p.parquet", rows)
    message = complaint(carspotter_here("data", "check", data, "--predictions", file))
    assert said in message
    assert str(file) in message


def test_predictions_of_other_classes(
    data: Path, tmp_path: Path, carspotter_here: Carspotter
) -> None:
    rows = good_rows(data)
    rows["label"] = ["Other"] * 24
    about = {"class_names": ["Other", "Another"], "format_version": 1}
    file = write_predictions(tmp_path / "p.parquet", rows, about)
    message = complaint(carspotter_here("data", "check", data, "--predictions", file))
    assert f"know no class {NAMES[0]!r}" in message


@pytest.mark.parametrize(
    ("about", "said"),
    [({}, "no class names in it"), ({"class_names": [], "format_version": 9}, "of format 9")],
)
def test_files_of_others(
    data: Path, tmp_path: Path, carspotter_here: Carspotter, about: dict[str, Any], said: str
) -> None:
    file = write_predictions(tmp_path / "p.parquet", good_rows(data), about)
    assert said in complaint(carspotter_here("data", "check", data, "--predictions", file))


def test_no_predictions_at_all(data: Path, tmp_path: Path, carspotter_here: Carspotter) -> None:
    gone = complaint(
        carspotter_here("data", "check", data, "--predictions", tmp_path / "gone.parquet")
    )
    assert "gone.parquet: not there" in gone
    (tmp_path / "text.parquet").write_text("no parquet")
    text = complaint(
        carspotter_here("data", "check", data, "--predictions", tmp_path / "text.parquet")
    )
    assert "text.parquet: not a predictions.parquet" in text
    flat = tmp_path / "flat.parquet"
    about = {"carspotter": json.dumps({"class_names": list(NAMES), "format_version": 1})}
    table = pa.table({**good_rows(data), "probabilities": [0.5] * 24})
    pq.write_table(table.replace_schema_metadata(about), flat)
    assert "no lists of one length" in complaint(
        carspotter_here("data", "check", data, "--predictions", flat)
    )
