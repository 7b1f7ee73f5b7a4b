"""`carspotter identify` on photos, folders and permissions that cause trouble."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pillow_heif
import pytest
from cli_checks import complaint, lines, photos
from conftest import Carspotter, draw_car, encoded
from PIL import Image
from tiny_model import ANSWERS, BLACK, BLUE, GREEN, RED, plain
from ugly_photos import hand_made_png


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
        pillow_heif.from_pillow(red).save(phone, quality=100)
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


def test_damaged_metadata_is_passed_over_in_silence(
    carspotter: Carspotter, model: Path, tmp_path: Path
) -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\x05\0"  # five entries, of which none is there
    (tmp_path / "a.jpg").write_bytes(encoded(plain(RED), exif=exif, quality=95))
    (found,) = lines(carspotter("identify", tmp_path, "--model", model, "--json"))
    assert found["answer"]["label"] == ANSWERS[RED][1]


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
