"""What the tests of the page share: a browser, a visit to the page, drawn photos."""

from __future__ import annotations

import base64
import contextlib
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from conftest import encoded
from PIL import Image, ImageDraw, ImageFilter
from tiny_model import plain

QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A headless Chromium; the test is skipped where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=list(QUIET))
        yield opened
        opened.close()


@dataclass
class Visit:
    """A page of the service, opened; what it said and asked for is written down.

    Attributes:
        page: Playwright's.
        said: errors and warnings of the console, without `refused`.
        refused: answers of 4xx and 5xx, which the browser itself notes on the console.
        asked: addresses of requests to other hosts.
    """

    page: Any
    said: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def card(self, name: str) -> Any:
        """The card of a photo."""
        return self.page.locator("li.card").filter(has=self.page.locator(".file", has_text=name))

    def choose(self, *photos: Path) -> None:
        """Choose photos, and wait until each has its answer."""
        self.page.set_input_files("#files", [str(photo) for photo in photos])
        self.settle()

    def until(self, condition: str, argument: Any = None, seconds: float = 60) -> None:
        """Wait until JavaScript gives something true.

        Playwright's own way evaluates text in the page, which the page's policy forbids.
        """
        deadline = time.monotonic() + seconds
        while not self.page.evaluate(condition, argument):
            assert time.monotonic() < deadline, condition
            self.page.wait_for_timeout(50)

    def settle(self) -> None:
        """Wait until nothing is under way, and the summary says so."""
        self.page.wait_for_selector("li.card")
        self.until("!document.querySelector('article[aria-busy=true]')")
        self.until("!document.getElementById('summary').textContent.includes('to go')")

    def drop(self, files: Sequence[tuple[str, bytes]], kind: str = "image/png") -> None:
        """Drag files over the page and let them go."""
        transfer = self.page.evaluate_handle(
            """([files, type]) => {
                const transfer = new DataTransfer();
                for (const [name, text] of files) {
                    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
                    transfer.items.add(new File([bytes], name, { type }));
                }
                return transfer;
            }""",
            [[[name, base64.b64encode(data).decode()] for name, data in files], kind],
        )
        self.page.dispatch_event("body", "dragenter", {"dataTransfer": transfer})
        self.page.dispatch_event("body", "dragover", {"dataTransfer": transfer})
        assert self.page.locator("#curtain").is_visible()
        self.page.dispatch_event("body", "drop", {"dataTransfer": transfer})
        assert not self.page.locator("#curtain").is_visible()


@contextlib.contextmanager
def visiting(browser: Any, url: str, *, wait: bool = True, **options: Any) -> Iterator[Visit]:
    """Open the page; at the end there was no console error and no request to another host."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    context.set_default_timeout(90_000)  # on a machine that has other work
    page = context.new_page()
    visit = Visit(page)

    def note(message: Any) -> None:
        if message.type not in ("error", "warning"):
            return
        refused = message.text.startswith("Failed to load resource")
        (visit.refused if refused else visit.said).append(message.text)

    def ask(request: Any) -> None:
        there = urlsplit(request.url)
        if there.scheme not in ("blob", "data") and there.netloc != urlsplit(url).netloc:
            visit.asked.append(request.url)

    page.on("console", note)
    page.on("pageerror", lambda error: visit.said.append(str(error)))
    page.on("request", ask)
    try:
        page.goto(url)
        if wait:
            page.wait_for_selector("#facts li")
        yield visit
    finally:
        context.close()
    assert visit.said == []
    assert visit.asked == []


def photo(folder: Path, name: str, colour: tuple[int, int, int]) -> Path:
    """A photo of one colour; the file's bytes say its format, not its name."""
    file = folder / name
    file.write_bytes(encoded(plain(colour, (160, 120)), "PNG"))
    return file


def heading(visit: Visit, name: str) -> str:
    return " ".join(visit.card(name).locator("h3").inner_text().split())


def said_aloud(visit: Visit, text: str) -> None:
    """Wait for a text in the live region."""
    visit.until("text => document.getElementById('live').textContent.includes(text)", text)


# --- drawn photos --------------------------------------------------------------------------------

PAINTS = {
    "red": (206, 46, 38),
    "green": (44, 132, 78),
    "blue": (38, 88, 178),
    "grey": (96, 100, 104),
    "sand": (214, 180, 122),
}


def street(paint: str, size: tuple[int, int] = (800, 600), seed: int = 0) -> Image.Image:
    """A drawn street with a car of this paint, seen from its side."""
    rng = np.random.default_rng(seed)
    width, height = (2 * side for side in size)
    rows = np.linspace(0, 1, height)[:, None, None]
    sky = (1 - rows) * np.array([150, 190, 222]) + rows * np.array([246, 226, 204])
    image = Image.fromarray(np.broadcast_to(sky, (height, width, 3)).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    ground = int(0.66 * height)
    left = -20
    while left < width:  # houses, far away
        broad, tall = (int(v) for v in rng.integers((90, 100), (220, 360)))
        shade = tuple(int(v) for v in np.array([186, 190, 196]) - rng.integers(0, 24))
        draw.rectangle((left, ground - tall, left + broad, ground), fill=shade)
        left += broad + int(rng.integers(4, 40))
    draw.rectangle((0, ground, width, height), fill=(98, 100, 104))
    draw.rectangle((0, ground, width, ground + 14), fill=(150, 150, 148))
    _car(draw, PAINTS[paint], width, height)
    return image.filter(ImageFilter.GaussianBlur(1)).resize(size, Image.Resampling.LANCZOS)


def _car(draw: ImageDraw.ImageDraw, paint: tuple[int, ...], width: int, height: int) -> None:
    def at(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(x * width, y * height) for x, y in points]

    dark = tuple(int(0.72 * part) for part in paint)
    draw.ellipse(at([(0.14, 0.765), (0.88, 0.825)]), fill=(70, 71, 75))
    body = [(0.13, 0.66), (0.145, 0.585), (0.30, 0.555), (0.40, 0.445), (0.46, 0.425)]
    body += [(0.62, 0.425), (0.68, 0.445), (0.765, 0.555), (0.85, 0.58), (0.875, 0.63)]
    body += [(0.875, 0.735), (0.86, 0.755), (0.15, 0.755), (0.13, 0.735)]
    draw.polygon(at(body), fill=paint)
    draw.polygon(
        at([(0.13, 0.69), (0.875, 0.69), (0.875, 0.735), (0.86, 0.755), (0.15, 0.755)]), dark
    )
    glass = (54, 70, 84)
    draw.polygon(at([(0.335, 0.55), (0.415, 0.462), (0.51, 0.455), (0.51, 0.55)]), fill=glass)
    draw.polygon(at([(0.53, 0.55), (0.53, 0.455), (0.655, 0.462), (0.725, 0.55)]), fill=glass)
    draw.rectangle(at([(0.135, 0.605), (0.165, 0.635)]), fill=(250, 240, 200))
    draw.rectangle(at([(0.855, 0.605), (0.875, 0.64)]), fill=(170, 20, 24))
    for middle in (0.28, 0.73):
        for radius, fill in (
            (0.062, (24, 25, 28)),
            (0.036, (190, 194, 198)),
            (0.012, (70, 72, 76)),
        ):
            tall = radius * width / height
            draw.ellipse(
                at([(middle - radius, 0.745 - tall), (middle + radius, 0.745 + tall)]), fill
            )
