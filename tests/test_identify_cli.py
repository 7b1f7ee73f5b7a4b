"""`carspotter identify`, run as users run it."""

from __future__ import annotations

import csv
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_model
from cli_checks import complaint, lines, photos
from conftest import Carspotter
from tiny_model import ANSWERS, BLACK, BLUE, GREEN, RED, plain

import carspotter as package

CSV_COLUMNS = ["photo", "level", "label", "make", "model", "body", "year", "confidence", "error"]


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

    @pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
    def test_a_stdout_that_is_not_utf_8(
        self, carspotter: Carspotter, model: Path, colours: Path, tmp_path: Path, encoding: str
    ) -> None:
        photo = tmp_path / "Käfer 日産.png"
        shutil.copy(colours / "red.png", photo)
        env = {"PYTHONIOENCODING": encoding}
        done = carspotter("identify", photo, "--json", "--model", model, env=env)
        assert photos(lines(done)) == [str(photo)]

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

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
    @pytest.mark.parametrize("style", [[], ["--json"], ["--csv"]], ids=["text", "json", "csv"])
    def test_a_full_disk(self, model: Path, colours: Path, style: list[str]) -> None:
        command = [sys.executable, "-m", "carspotter", "identify", "--model", str(model), *style]
        with Path("/dev/full").open("wb") as full:
            done = subprocess.run(
                [*command, str(colours / "red.png")],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        assert done.returncode == 1
        assert done.stderr == "carspotter: [Errno 28] No space left on device\n"

    @pytest.mark.skipif(os.name == "nt", reason="a shell of another kind")
    @pytest.mark.parametrize(
        ("call", "said"),
        [
            (("identify", "a.png", "--model", "{model}", "1>&-"), "stdout is closed"),
            (("identify", "a.png", "--model", "{model}", "--csv", "1>&-"), "stdout is closed"),
            (("identify", "-", "--model", "{model}", "0<&-"), "stdin is closed"),
            (
                ("teach", "X", "-", "--garage", "g.npz", "--model", "{model}", "0<&-"),
                "stdin is closed",
            ),
        ],
    )
    def test_closed_streams(
        self, model: Path, tmp_path: Path, call: tuple[str, ...], said: str
    ) -> None:
        command = " ".join((sys.executable, "-m carspotter", *call)).format(model=model)
        done = subprocess.run(
            ["sh", "-c", command], capture_output=True, text=True, cwd=tmp_path, check=False
        )
        assert said in complaint(done)


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

    @pytest.mark.skipif(os.name == "nt", reason="Windows has no such pipes")
    def test_a_pipe_in_a_folder_is_left_out(
        self, carspotter: Carspotter, model: Path, tree: Path
    ) -> None:
        os.mkfifo(tree / "pipe.jpg")  # to read it would take for ever
        (tree / "link.png").symlink_to(tree / "b.png")
        found = photos(lines(carspotter("identify", tree, "--json", "--model", model)))
        assert [Path(name).name for name in found[:3]] == ["a.PNG", "b.png", "link.png"]
        assert str(tree / "pipe.jpg") not in found

    def test_globs_that_no_shell_expanded(
        self, carspotter: Carspotter, model: Path, tree: Path
    ) -> None:
        calls = [tree / "*.[pP][nN][gG]", tree / "**" / "*.jp*g"]
        found = photos(lines(carspotter("identify", *calls, "--json", "--model", model)))
        names = ["a.PNG", "b.png", "another/e.jpeg", "sub/c.jpg"]
        assert found == [str(tree / name) for name in names]

    @pytest.mark.parametrize("pattern", ["*", "**", "s*", "**/s*"])
    def test_folders_that_a_glob_matches(
        self, carspotter: Carspotter, model: Path, tree: Path, pattern: str
    ) -> None:
        (tree / "notes.txt").unlink()
        (tree / "Makefile").unlink()
        done = carspotter("identify", tree / pattern, "--json", "--model", model)
        names = ["sub/c.jpg", "sub/deep/d.webp"]
        if "s" not in pattern:
            names = ["a.PNG", "another/e.jpeg", "b.png", *names]
        assert sorted(photos(lines(done))) == [str(tree / name) for name in names]

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

    def test_cars_are_not_looked_for_by_a_file(
        self, carspotter: Carspotter, model: Path, colours: Path
    ) -> None:
        """Who asks for it is told, with what would find them."""
        call = ("identify", colours / "red.png", "--model", model, "--crop", "auto")
        done = carspotter(*call)
        assert done.returncode == 0
        assert "--detector embedded" in done.stderr
        assert done.stderr.count("\n") == 1
        for more in ("--quiet", "--detector=none"):
            assert carspotter(*call, more).stderr == ""

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
        file = tiny_model.write(tmp_path / "m.onnx", '{"format_version": 99}')
        assert "pip install -U carspotter" in self.call(carspotter, file, colours)

    @pytest.mark.parametrize("name", ["no-such-model", "no/such/file.onnx"])
    def test_missing(self, carspotter: Carspotter, colours: Path, name: str) -> None:
        assert name in self.call(carspotter, name, colours)

    def test_no_model_at_all(self, carspotter: Carspotter, colours: Path, tmp_path: Path) -> None:
        (tmp_path / "photo.onnx").write_bytes((colours / "red.png").read_bytes())
        assert "photo.onnx" in self.call(carspotter, tmp_path / "photo.onnx", colours)
