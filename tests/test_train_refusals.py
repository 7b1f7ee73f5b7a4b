"""What cannot be trained on, or gone on with: refused by name, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import draw_car, encoded, write_parquet
from training import run

from carspotter.errors import DataError, ModelFileError, RecipeError, UsageError
from carspotter.train import RunFolder, load_checkpoint

# From Python 3.12 on, forking a loader's worker warns wherever another thread runs.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CARSPOTTER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"backbone": "test_efficientnt"}, "'test_efficientnt' is not a timm model"),
        ({"weights": "file:/gone/b3.pt"}, "/gone/b3.pt: no such file"),
        ({"weights": "package"}, "no package carries weights of test_efficientnet"),
    ],
)
def test_model_that_cannot_be_had(
    drawn_data: Path, tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(RecipeError, match=named):
        run(drawn_data, tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_data_of_one_class(tmp_path: Path) -> None:
    rows = [(f"{i}.jpg", encoded(draw_car(i)), 0) for i in range(12)]
    file = tmp_path / "data" / "train-00000-of-00001.parquet"
    write_parquet(file, rows, ("Only Car Coupe 2001",))
    with pytest.raises(DataError, match=r"needs two classes, this has.*Only Car Coupe 2001"):
        run(tmp_path, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_too_few_pictures_for_a_step(drawn_data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"54 training pictures are too few: .* at least 56"):
        run(drawn_data, tmp_path / "run", accumulate=28)
    assert not (tmp_path / "run").exists()


def without_precision(file: Path) -> None:
    content = torch.load(file, weights_only=True)
    del content["precision"]
    torch.save(content, file)


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:5000])


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (without_precision, r"last\.ckpt: no run of this version .*'precision'"),
        (cut_short, r"last\.ckpt: not a checkpoint, or damaged"),
    ],
)
def test_state_that_cannot_be_gone_on_with(
    drawn_data: Path, tmp_path: Path, damage: Callable[[Path], None], named: str
) -> None:
    folder = run(drawn_data, tmp_path / "run", epochs=2, stop_after=1)
    damage(folder.last)
    with pytest.raises(ModelFileError, match=named):
        run(drawn_data, folder.path, epochs=2, resume=True)
    assert len(folder.read_metrics()) == 1
    assert load_checkpoint(folder.path).epoch == 1  # what was trained is still there


def test_nothing_to_resume(drawn_data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run to resume"):
        run(drawn_data, tmp_path / "run", resume=True)
    assert not (tmp_path / "run").exists()


def test_run_that_never_saved_its_state_starts_anew(drawn_data: Path, tmp_path: Path) -> None:
    folder = run(drawn_data, tmp_path / "run", epochs=2, stop_after=1)
    folder.last.unlink()
    run(drawn_data, folder.path, epochs=2, resume=True)
    assert [line["epoch"] for line in RunFolder(folder.path).read_metrics()] == [1, 2]
    assert "resumed" not in (folder.path / "log.txt").read_text()
