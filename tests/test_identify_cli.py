"""`carspotter identify`, run as users run it."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_model
from conftest import Carspotter, draw_car, encoded
from PIL import Image
from test_photo import hand_made_png
from tiny_model import ANSWERS, BLACK, BLUE, GREEN, RED, plain

import carspotter as package

RESULT_KEYS = {"photo", "answer", "candidates", "box", "others", "model", "error"}
PART_KEYS = {"label", "make", "model", "body", "year", "confidence"}
CSV_COLUMNS = ["photo", "level", "label", "make", "model", "body", "year", "confidence", "error"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.write(tmp_path_factory.mktemp("model") / "tiny.onnx")


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one photo for each level of answer."""
    folder = tmp_path_factory.mktemp("colours")
    for name, colour in (("red", RED), ("green", GREEN), ("blue", BLUE), ("black", BLACK)):
        plain(colour).save(folder / f"{name}.png")
    return folder


def lines(done: subprocess.CompletedProcess[str], exit_code: int = 0) -> list[dict[str, Any]]:
    """The results of `--json`, each checked to have the shape of the contract."""
    assert done.returncode == exit_code, done.stderr
    assert done.stderr == ""
    found = [json.loads(line) for line in done.stdout.splitlines()]
    for result in found:
        assert set(result) == RESULT_KEYS
        assert set(result["model"]) == {"name", "version", "sha256"}
        assert all(set(candidate) == PART_KEYS for candidate in result["candidates"])
        assert (result["answer"] is None) != (result["error"] is None)
        if result["answer"] is not None:
            assert set(result["answer"]) == PART_KEYS | {"level"}
        else:
            assert set(result["error"]) == {"code", "message"}
            assert result["error"]["message"].startswith(f"{result['photo']}: ")
    return found


def photos(found: list[dict[str, Any]]) -> list[str]:
    return [result["photo"] for result in found]


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    """What a wrong call prints: one line on stderr, no traceback, nothing on stdout."""
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("carspotter: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


class TestOutput:
    def test_text(self, carspotter: Carspotter, model: Path, colours: Path) -> None:
        names = [colours / f"{name}.png" for name in ("red", "green", "blue", "black")]
        done = carspotter("identify", *names, "--model", model, "--top", "2")
        assert (done.returncode, done.stderr) == (0, "")
        text = done.stdout.splitlines()
        assert len(text) == 12
        red, green, blue, black = text[::3]
        assert red == f"{names[0]}: Audi S4 Sedan 2012, over 99 %"
        assert green.startswith(f"{names[1]}: Audi S4, over 99 %")
        assert "body style and year are not clear" in green
        assert blue.startswith(f"{names[2]}: Audi, over 99 %")
        assert "the model is not clear" in blue
        assert black == f"{names[3]}: not clear which car this is"
        assert text[1].split("%")[1].strip() == "Audi S4 Sedan 2012"
        assert "50.0 %" in text[4]

    def test_a_failure_in_text(self, carspotter: Carspotter, model: Path, colours: Path) -> None:
        done = carspotter("identify", "none.jpg", colours / "red.png", "--model", model)
        assert (done.returncode, done.stderr) == (1, "")
        assert done.stdout.splitlines()[0] == "none.jpg: error: no such file"
        assert f"{colours / 'red.png'}: Audi S4 Sedan 2012, over 99 %" in done.stdout

    def test_json(self, carspotter: Carspotter, model: Path, colours: Path) -> None:
        names = {
            colour: colours / f"{name}.png"
            for colour, name in zip(
                (RED, GREEN, BLUE, BLACK), ("red", "green", "blue", "black"), strict=True
            )
        }
        found = lines(carspotter("identify", *names.values(), "--json", "--model", model))
        assert photos(found) == [str(name) for name in names.values()]
        answers = [(f["answer"]["level"], f["answer"]["label"]) for f in found]
        assert answers == [ANSWERS[colour] for colour in names]
        spotter = package.load(model)
        assert found == [spotter.identify(name).to_dict() for name in names.values()]

    def test_csv(self, carspotter: Carspotter, model: Path, colours: Path, tmp_path: Path) -> None:
        odd = tmp_path / 'odd, "name".png'
        shutil.copy(colours / "red.png", odd)
        names = [odd, colours / "green.png", tmp_path / "none.jpg", colours / "black.png"]
        done = carspotter("identify", *names, "--csv", "--model", model)
        assert (done.returncode, done.stderr) == (1, "")
        assert done.stdout.splitlines()[0] == ",".join(CSV_COLUMNS)
        red, green, none, black = csv.DictReader(io.StringIO(done.stdout))
        assert red == {
            "photo": str(odd),
            "level": "exact",
            "label": "Audi S4 Sedan 2012",
            "make": "Audi",
            "model": "S4",
            "body": "Sedan",
            "year": "2012",
            "confidence": "1.0",
            "error": "",
        }
        assert (green["level"], green["body"], green["year"]) == ("model", "", "")
        assert none["error"].startswith("not_found: ")
        assert [none[column] for column in CSV_COLUMNS[1:-1]] == [""] * 7
        assert (black["level"], black["make"]) == ("unknown", "")

    def test_names_in_any_script(
        self, carspotter: Carspotter, model: Path, colours: Path, tmp_path: Path
    ) -> None:
        photo = tmp_path / "Käfer 日産 🚗.png"
        shutil.copy(colours / "red.png", photo)
        done = carspotter("identify", tmp_path, "--json", "--model", model)
        assert photos(lines(done)) == [str(photo)]
        assert "日産 🚗" in done.stdout

    @pytest.mark.parametrize("style", [[], ["--json"], ["--csv"]], ids=["text", "json", "csv"])
    def test_a_name_that_is_not_utf_8(
        self, carspotter: Carspotter, model: Path, colours: Path, tmp_path: Path, style: list[str]
    ) -> None:
        shutil.copy(colours / "red.png", os.fsencode(tmp_path) + b"/a-caf\xe9.png")
        shutil.copy(colours / "red.png", tmp_path / "b.png")
        # As in most users' locales; in the C locale Python is not strict.
        env = {"PYTHONIOENCODING": "utf-8:strict"}
        done = carspotter("identify", tmp_path, "--model", model, *style, env=env)
        assert (done.returncode, done.stderr) == (0, "")
        assert "b.png" in done.stdout

    @pytest.mark.parametrize("style", [[], ["--json"], ["--csv"]], ids=["text", "json", "csv"])
    def test_a_pipe_that_closes_early(self, model: Path, colours: Path, style: list[str]) -> None:
        command = [sys.executable, "-m", "carspotter", "identify", "--model", str(model), *style]
        command += [str(colours)] * 150
        with (
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run,
            subprocess.Popen(["head", "-1"], stdin=run.stdout, stdout=subprocess.PIPE) as head,
        ):
            assert run.stdout is not None
            run.stdout.close()
            assert head.communicate(timeout=60)[0].count(b"\n") == 1
            assert run.stderr is not None
            assert run.stderr.read() == b""


class TestSources:
    @pytest.fixture
    def tree(self, tmp_path: Path) -> Path:
        root = tmp_path / "tree"
        for name in ("b.png", "a.PNG", "sub/c.jpg", "sub/deep/d.webp", "another/e.jpeg"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            plain(RED).save(root / name)
        (root / ".hidden.png").write_bytes((root / "b.png").read_bytes())
        (root / "._b.png").write_bytes(b"what a Mac leaves behind")
        (root / "notes.txt").write_text("not a photo")
        (root / "Makefile").write_text("nor this")
        (root / "empty").mkdir()
        return root

    def test_a_folder(self, carspotter: Carspotter, model: Path, tree: Path) -> None:
        found = photos(lines(carspotter("identify", tree, "--json", "--model", model)))
        assert found == [
            str(tree / name)
            for name in ("a.PNG", "b.png", "another/e.jpeg", "sub/c.jpg", "sub/deep/d.webp")
        ]

    def test_a_hidden_folder_inside_is_ignored(
        self, carspotter: Carspotter, model: Path, tree: Path
    ) -> None:
        (tree / ".thumbnails").mkdir()
        plain(RED).save(tree / ".thumbnails" / "b.png")
        found = photos(lines(carspotter("identify", tree, "--json", "--model", model)))
        assert not [name for name in found if ".thumbnails" in name]

    def test_globs_that_no_shell_expanded(
        self, carspotter: Carspotter, model: Path, tree: Path
    ) -> None:
        calls = [tree / "*.[pP][nN][gG]", tree / "**" / "*.jp*g"]
        found = photos(lines(carspotter("identify", *calls, "--json", "--model", model)))
        names = ["a.PNG", "b.png", "another/e.jpeg", "sub/c.jpg"]
        assert found == [str(tree / name) for name in names]

    def test_a_name_that_looks_like_a_glob(
        self, carspotter: Carspotter, model: Path, tmp_path: Path
    ) -> None:
        photo = tmp_path / "a[1]*.png"
        plain(RED).save(photo)
        assert photos(lines(carspotter("identify", photo, "--json", "--model", model))) == [
            str(photo)
        ]

    def test_several_arguments_keep_their_order(
        self, carspotter: Carspotter, model: Path, tree: Path
    ) -> None:
        calls = [tree / "sub", tree / "b.png", tree / "a.*", tree / "b.png"]
        found = photos(lines(carspotter("identify", *calls, "--json", "--model", model)))
        names = ["sub/c.jpg", "sub/deep/d.webp", "b.png", "a.PNG", "b.png"]
        assert found == [str(tree / name) for name in names]

    def test_stdin(self, carspotter: Carspotter, model: Path, colours: Path) -> None:
        data = (colours / "blue.png").read_bytes()
        (found,) = lines(carspotter("identify", "-", "--json", "--model", model, stdin=data))
        assert (found["answer"]["level"], found["answer"]["label"]) == ANSWERS[BLUE]
        assert found["photo"] == "<stdin>"

    def test_stdin_among_others(self, carspotter: Carspotter, model: Path, colours: Path) -> None:
        calls = [colours / "red.png", "-", colours / "black.png"]
        data = (colours / "green.png").read_bytes()
        found = lines(carspotter("identify", *calls, "--json", "--model", model, stdin=data))
        labels = [f["answer"]["label"] for f in found]
        assert labels == [ANSWERS[colour][1] for colour in (RED, GREEN, BLACK)]

    @pytest.mark.parametrize(("data", "code"), [(b"", "empty"), (b"text", "not_an_image")])
    def test_bad_stdin(self, carspotter: Carspotter, model: Path, data: bytes, code: str) -> None:
        done = carspotter("identify", "-", "--json", "--model", model, stdin=data)
        (found,) = lines(done, exit_code=1)
        assert found["error"]["code"] == code

    def test_nothing_there(
        self, carspotter: Carspotter, model: Path, colours: Path, tree: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "dangling.png").symlink_to(tmp_path / "gone")
        calls = {
            tree / "empty": "unreadable",
            tmp_path / "missing.jpg": "not_found",
            tmp_path / "*.gif": "not_found",
            tmp_path / "dangling.png": "not_found",
            tree / "b.png" / "c.png": "unreadable",
            colours / "red.png": None,
        }
        done = carspotter("identify", *calls, "--json", "--model", model)
        found = {Path(f["photo"]): f["error"] and f["error"]["code"] for f in lines(done, 1)}
        assert found == calls


class TestUglyPhotos:
    def test_each_gets_its_own_answer_or_error(
        self, carspotter: Carspotter, model: Path, tmp_path: Path
    ) -> None:
        red = plain(RED)
        upside = Image.Exif()
        upside[0x112] = 6
        palette = Image.new("P", (40, 40))
        palette.putpalette([255, 0, 0, 0, 0, 255])
        clear = Image.new("RGBA", (40, 40), (255, 0, 0, 255))
        dark = Image.new("I;16", (40, 40))
        frames = [plain(BLUE), plain(GREEN)]
        good = {
            "cmyk.jpg": (encoded(red.convert("CMYK"), "JPEG", quality=95), RED),
            "dark 16 bit.png": (encoded(dark, "PNG"), BLACK),
            "palette.png": (encoded(palette, "PNG"), RED),
            "rgba.png": (encoded(clear, "PNG"), RED),
            "exif.jpg": (encoded(red, "JPEG", exif=upside), RED),
            "animated.gif": (encoded(red, "GIF", save_all=True, append_images=frames), RED),
            "png called.jpg": (encoded(plain(BLUE), "PNG"), BLUE),
            "no ending": (encoded(plain(GREEN), "PNG"), GREEN),
        }
        phone = io.BytesIO()
        pytest.importorskip("pillow_heif").from_pillow(red).save(phone, quality=100)
        good["phone.HEIC"] = (phone.getvalue(), RED)
        bad = {
            "truncated.jpg": (encoded(draw_car(0), quality=95)[:2_000], "broken"),
            "text.jpg": (b"no photo at all\n" * 9, "not_an_image"),
            "empty.jpg": (b"", "empty"),
            "dot.png": (encoded(red.resize((1, 1)), "PNG"), "too_small"),
            "bomb.png": (hand_made_png(30_000, 30_000), "too_large"),
        }
        # Good and bad in turn, so that each bad one has good neighbours in its batch.
        names = [name for pair in zip(good, [*bad, *bad], strict=False) for name in pair]
        for name, (data, _) in {**good, **bad}.items():
            (tmp_path / name).write_bytes(data)
        calls = [tmp_path / name for name in names]
        done = carspotter("identify", *calls, "--json", "--model", model)
        found = lines(done, exit_code=1)
        assert photos(found) == [str(call) for call in calls]
        for name, result in zip(names, found, strict=True):
            if name in bad:
                assert result["error"]["code"] == bad[name][1], name
            else:
                answer = (result["answer"]["level"], result["answer"]["label"])
                assert answer == ANSWERS[good[name][1]], name


@pytest.fixture(scope="module")
def unprivileged() -> list[str]:
    """What stands before a command so that file permissions hold for it, even for root's."""
    if os.name == "nt":
        pytest.skip("Windows has other permissions")
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("root reads everything, and setpriv is not here to give that up")
    return [
        "setpriv",
        "--bounding-set=-dac_override,-dac_read_search",
        "--inh-caps=-dac_override,-dac_read_search",
    ]


class TestPermissions:
    @pytest.fixture
    def locked(self, tmp_path: Path, colours: Path) -> Path:
        """A folder with a file and a folder that may not be read, and one photo that may."""
        root = tmp_path / "photos"
        shutil.copytree(colours, root / "locked")
        shutil.copy(colours / "red.png", root / "b.png")
        shutil.copy(colours / "red.png", root / "a.png")
        (root / "a.png").chmod(0)
        (root / "locked").chmod(0)
        return root

    @pytest.fixture(autouse=True)
    def unlock(self, tmp_path: Path) -> Any:
        yield
        for path in (tmp_path / "photos" / "locked", tmp_path / "models"):
            if path.is_dir():
                path.chmod(0o700)

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*map(str, command)], capture_output=True, text=True, timeout=60, check=False
        )

    def test_unreadable_photos_and_folders(
        self, unprivileged: list[str], model: Path, locked: Path
    ) -> None:
        calls = [locked, locked / "locked", locked / "locked" / "red.png", locked / "a.png"]
        command = [*unprivileged, sys.executable, "-m", "carspotter", "identify", *calls]
        found = lines(self.run(*command, "--model", model, "--json"), exit_code=1)
        assert [(f["photo"], f["error"] and f["error"]["code"]) for f in found] == [
            (str(locked / "a.png"), "unreadable"),
            (str(locked / "b.png"), None),
            *((str(locked / "locked"), "unreadable") for _ in range(2)),
            (str(locked / "locked" / "red.png"), "unreadable"),
            (str(locked / "a.png"), "unreadable"),
        ]
        assert all("permission" in f["error"]["message"] for f in found if f["error"])

    def test_an_unreadable_model(
        self, unprivileged: list[str], model: Path, colours: Path, tmp_path: Path
    ) -> None:
        file = tmp_path / "tiny.onnx"
        shutil.copy(model, file)
        file.chmod(0)
        command = [*unprivileged, sys.executable, "-m", "carspotter", "identify", colours]
        assert str(file) in complaint(self.run(*command, "--model", file))

    def test_a_model_in_a_locked_folder(
        self, unprivileged: list[str], model: Path, colours: Path, tmp_path: Path
    ) -> None:
        file = tmp_path / "models" / "tiny.onnx"
        file.parent.mkdir()
        shutil.copy(model, file)
        file.parent.chmod(0)
        command = [*unprivileged, sys.executable, "-m", "carspotter", "identify", colours]
        assert str(file) in complaint(self.run(*command, "--model", file))


class TestOptions:
    def test_top(self, carspotter: Carspotter, model: Path, colours: Path) -> None:
        photo = colours / "red.png"
        for top, count in ((1, 1), (3, 3), (50, 4)):
            done = carspotter("identify", photo, "--top", str(top), "--json", "--model", model)
            assert len(lines(done)[0]["candidates"]) == count

    def test_box(self, carspotter: Carspotter, model: Path, tmp_path: Path) -> None:
        image = plain(RED, (100, 50))
        image.paste(BLUE, (60, 0, 100, 50))
        image.save(tmp_path / "a.png")
        plain(RED).save(tmp_path / "b.png")
        done = carspotter("identify", tmp_path, "--box", "60,0,100,50", "--json", "--model", model)
        cut, outside = lines(done, exit_code=1)
        assert (cut["answer"]["label"], cut["box"]) == (ANSWERS[BLUE][1], [60, 0, 100, 50])
        assert (outside["error"]["code"], outside["box"]) == ("box_outside", None)

    @pytest.mark.parametrize(
        "box", ["1,2,3", "1,2,3,4,5", "a,b,c,d", "", "1.5,2,3,4", "30,0,10,10", "0,9,9,9"]
    )
    def test_bad_boxes(self, carspotter: Carspotter, model: Path, colours: Path, box: str) -> None:
        done = carspotter("identify", colours / "red.png", f"--box={box}", "--model", model)
        assert "--box" in complaint(done)

    def test_json_and_csv_exclude_each_other(
        self, carspotter: Carspotter, model: Path, colours: Path
    ) -> None:
        done = carspotter("identify", colours, "--json", "--csv", "--model", model)
        assert "--json" in complaint(done)

    def test_stdin_twice(self, carspotter: Carspotter, model: Path) -> None:
        complaint(carspotter("identify", "-", "-", "--model", model, stdin=b""))

    @pytest.mark.parametrize(
        "arguments",
        [[], ["a.jpg", "--top", "0"], ["a.jpg", "--threads", "0"], ["a.jpg", "--speed"]],
        ids=["no photo", "top", "threads", "unknown option"],
    )
    def test_wrong_usage(self, carspotter: Carspotter, arguments: list[str]) -> None:
        done = carspotter("identify", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert "Traceback" not in done.stderr

    def test_quiet(self, carspotter: Carspotter, model: Path, colours: Path) -> None:
        done = carspotter("identify", colours, "--quiet", "--threads", "1", "--model", model)
        assert (done.returncode, done.stderr) == (0, "")

    def test_help_has_an_example(self, carspotter: Carspotter) -> None:
        done = carspotter("identify", "--help")
        assert done.returncode == 0
        assert "Example: carspotter identify" in done.stdout


class TestModelFile:
    def call(self, carspotter: Carspotter, model: str | Path, colours: Path) -> str:
        return complaint(carspotter("identify", colours, "--model", model))

    def test_damaged(
        self, carspotter: Carspotter, model: Path, colours: Path, tmp_path: Path
    ) -> None:
        data = bytearray(model.read_bytes())
        data[100] ^= 1
        (tmp_path / "m.onnx").write_bytes(data)
        message = self.call(carspotter, tmp_path / "m.onnx", colours)
        assert str(tmp_path / "m.onnx") in message
        assert "damaged" in message

    def test_of_a_newer_format(self, carspotter: Carspotter, colours: Path, tmp_path: Path) -> None:
        file = tiny_model.write(tmp_path / "m.onnx", '{"format_version": 2}')
        assert "pip install -U carspotter" in self.call(carspotter, file, colours)

    @pytest.mark.parametrize("name", ["no-such-model", "no/such/file.onnx"])
    def test_missing(self, carspotter: Carspotter, colours: Path, name: str) -> None:
        assert name in self.call(carspotter, name, colours)

    def test_no_model_at_all(self, carspotter: Carspotter, colours: Path, tmp_path: Path) -> None:
        (tmp_path / "photo.onnx").write_bytes((colours / "red.png").read_bytes())
        assert "photo.onnx" in self.call(carspotter, tmp_path / "photo.onnx", colours)
