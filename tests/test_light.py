"""The base install stays light, and what needs more says what to install."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_model

import carspotter
from carspotter.errors import CarspotterError, UsageError

HEAVY = (
    "torch",
    "torchvision",
    "timm",
    "pyarrow",
    "scipy",
    "matplotlib",
    "pydantic",
    "onnx",
    "optuna",
    "sklearn",
)

# Newer releases of typer check arguments with it; recognition itself must do without.
BROUGHT_BY_TYPER = {"pydantic"}

PUBLIC = {
    "Answer",
    "Candidate",
    "Car",
    "CarName",
    "CarspotterError",
    "DataError",
    "ExportError",
    "Explanation",
    "Failure",
    "Garage",
    "GarageError",
    "HeatMap",
    "Identification",
    "LabelSet",
    "MissingExtraError",
    "ModelFileError",
    "ModelInfo",
    "PhotoError",
    "RecipeError",
    "Spotter",
    "UsageError",
    "__version__",
    "load",
}


def python(code: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=dict(os.environ),
    )


LOADED = """
loaded = {name.partition(".")[0] for name, module in sys.modules.items() if module is not None}
print(*sorted(loaded))
"""


def loaded_by(code: str, *arguments: str | Path) -> set[str]:
    done = python(f"import sys\n{code}\n{LOADED}", *arguments)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.write(tmp_path_factory.mktemp("model") / "tiny.onnx")


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("photo") / "red.png"
    tiny_model.plain(tiny_model.RED).save(file)
    return file


def test_recognition_loads_nothing_heavy(model: Path, photo: Path) -> None:
    code = """
import carspotter
spotter = carspotter.load(sys.argv[1])
assert spotter.identify(sys.argv[2]).answer.label == "Audi S4 Sedan 2012"
assert next(spotter.identify_many([sys.argv[2]])).error is None
assert spotter.explain(sys.argv[2]).overlay().mode == "RGB"
"""
    loaded = loaded_by(code, model, photo)
    assert {"carspotter", "numpy", "onnxruntime", "PIL"} <= loaded
    # email: comes with importlib.metadata, which only the version needs.
    assert loaded.isdisjoint({*HEAVY, "email"})


def test_the_command_line_loads_nothing_heavy(model: Path, photo: Path, tmp_path: Path) -> None:
    code = """
from carspotter.cli import run
model, photo, folder = sys.argv[1:]
assert not run(["identify", photo, "--model", model, "--explain", folder])
"""
    loaded = loaded_by(code, model, photo, tmp_path)
    assert "onnxruntime" in loaded
    assert loaded.isdisjoint(set(HEAVY) - BROUGHT_BY_TYPER)


def test_a_call_builds_the_parser_of_its_verb_alone() -> None:
    from typer.main import get_command

    from carspotter.cli.app import app_for

    def verbs(*arguments: str) -> set[str]:
        return set(get_command(app_for(arguments)).commands)  # type: ignore[attr-defined]

    every = verbs("--help")
    assert {"identify", "serve", "data", "export"} <= every
    assert verbs("identify", "photo.jpg") == {"identify"}
    assert verbs() == verbs("data", "check") == verbs("no-such-verb") == every


def test_importing_alone_loads_nothing() -> None:
    loaded = loaded_by("import carspotter")
    assert "carspotter" in loaded
    assert loaded.isdisjoint({*HEAVY, "numpy", "onnxruntime", "PIL", "pillow_heif", "typer"})


def test_help_loads_no_runtime() -> None:
    code = """
from carspotter.cli import run
assert not run(["train", "--help"])
"""
    heavy = {*HEAVY, "numpy", "onnxruntime", "PIL"}
    assert loaded_by(code).isdisjoint(heavy - BROUGHT_BY_TYPER)


def test_recognition_works_where_nothing_heavy_is_installed(model: Path, photo: Path) -> None:
    code = f"""
import sys
sys.modules.update(dict.fromkeys({HEAVY!r}))
import carspotter
print(carspotter.load(sys.argv[1]).identify(sys.argv[2]).answer.label)
"""
    done = python(code, model, photo)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Audi S4 Sedan 2012\n", "")


def test_the_public_names() -> None:
    assert set(carspotter.__all__) == PUBLIC
    assert len(carspotter.__all__) == len(PUBLIC)
    for name in PUBLIC:
        assert getattr(carspotter, name) is not None
    assert dir(carspotter) == sorted(PUBLIC)


def test_public_names_come_from_where_they_are_defined() -> None:
    for name in PUBLIC - {"__version__"}:
        found = getattr(carspotter, name)
        assert found.__name__ == name
        assert found.__module__.startswith("carspotter.")


def test_a_name_that_does_not_exist() -> None:
    with pytest.raises(AttributeError, match="wheels"):
        carspotter.wheels  # noqa: B018


def test_the_error_tree() -> None:
    errors = {name for name in PUBLIC if name.endswith("Error")}
    assert all(issubclass(getattr(carspotter, name), CarspotterError) for name in errors)
    assert issubclass(carspotter.MissingExtraError, UsageError)
    error = carspotter.MissingExtraError("fly", "wings")
    assert str(error) == "fly needs more packages: pip install 'carspotter[wings]'"
    assert error.extra == "wings"


WITHOUT = """
import sys
verb, *missing = sys.argv[1].split()
sys.modules.update(dict.fromkeys(missing))
sys.argv = ["carspotter", verb, *sys.argv[2:]]
from carspotter.cli import main
main()
"""

CALLS = {
    "train": ("lite0", "--data", "nowhere", "--out", "run"),
    "evaluate": ("stanford-cars-lite2", "--data", "nowhere"),
    "export": ("run", "--out", "model.onnx"),
    "soup": ("one", "other", "--out", "run"),
    "tune": ("lite0", "--data", "nowhere", "--trials", "1", "--out", "study"),
}


@pytest.mark.parametrize("verb", CALLS)
def test_a_verb_without_its_extra_says_what_to_install(verb: str) -> None:
    missing = set(HEAVY) - BROUGHT_BY_TYPER
    done = python(WITHOUT, " ".join([verb, *sorted(missing)]), *CALLS[verb])
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        f"carspotter: {verb} needs more packages: pip install 'carspotter[train]'\n"
    )


@pytest.mark.parametrize(("engine", "extra"), [("local", "label"), ("ray", "ray")])
def test_label_says_what_its_engine_needs(engine: str, extra: str) -> None:
    done = python(WITHOUT, "label pyarrow", "nowhere", "--out", "out.csv", "--engine", engine)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith(f"needs more packages: pip install 'carspotter[{extra}]'\n")
