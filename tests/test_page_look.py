"""The page's looks: light and dark, narrow and wide, and what axe-core says of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_detectors
import tiny_model
from page_visit import Visit, street, visiting
from serve_process import Served, served

from carspotter.names import split_name

CARS = (
    "Audi S4 Sedan 2012",
    "Audi S4 Sedan 2007",
    "BMW M3 Coupe 2012",
    "Chevrolet Silverado 1500 Hybrid Crew Cab 2012",
)

WEIGHTS = np.array([[-6, -5, 11, -3], [17, 17, -11, -18], [-9, -10, 3, 23]], np.float32)
"""Of the mean red, green and blue (rows): for each drawn photo another level of answer."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("look")


@pytest.fixture(scope="module")
def photos(place: Path) -> list[Path]:
    """Drawn photos, a name that is long, a file that is none, a small and a tall one."""
    shapes = {
        "IMG_2041.jpg": ("red", (800, 600)),
        "driveway.jpg": ("green", (800, 600)),
        "holiday-in-the-south-with-everybody-2009-copy-of-copy-final.jpg": ("blue", (900, 500)),
        "tall.jpg": ("sand", (480, 720)),
    }
    files = []
    for number, (name, (paint, size)) in enumerate(shapes.items()):
        street(paint, size, number).save(place / name, quality=90)
        files.append(place / name)
    broken = place / "broken.jpg"
    broken.write_bytes((place / "IMG_2041.jpg").read_bytes()[:3000])
    return [*files, broken]


@pytest.fixture(scope="module")
def service(place: Path) -> Iterator[Served]:
    """A toy model behind a toy detector, with teaching."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_model, "WEIGHTS", WEIGHTS)
        model = tiny_model.write(
            place / "toy.onnx",
            tiny_model.card([split_name(name) for name in CARS]).to_json(),
            head=WEIGHTS.T,
        )
    width, height = tiny_detectors.SIZE
    box = (0.11 * width, 0.40 * height, 0.9 * width, 0.84 * height)
    detector = tiny_detectors.localiser(place / "toy-detector.onnx", [box], [1.5])
    options = ("--model", model, "--detector", detector)
    teaching = ("--garage", place / "garage.npz", "--allow-teaching")
    with served(place, *options, *teaching) as started:
        yield started


def fits(visit: Visit) -> None:
    """Nothing makes the page scroll sideways, and nothing is cut off at its right."""
    across = visit.page.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert across[0] <= across[1]
    beyond = visit.page.evaluate(
        """() => [...document.querySelectorAll("body *")]
            .filter((one) => !one.closest(".scroll, .unseen, .skip, svg, .file, .picture, .wait"))
            .filter((one) => one.getBoundingClientRect().right > innerWidth + 0.5)
            .map((one) => one.outerHTML.slice(0, 120))"""
    )
    assert beyond == []


def accessible(visit: Visit) -> None:
    """axe-core finds nothing, best practices included."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    # Colours that are under way to others have no contrast of their own.
    visit.until(
        "document.getAnimations().every("
        "(one) => one.playState === 'finished' || one.effect.getTiming().iterations > 1)"
    )
    found = axe.Axe().run(visit.page)
    assert len(found.response["passes"]) > 10
    assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_no_width_scrolls_sideways(
    browser: Any, service: Served, photos: list[Path], width: int
) -> None:
    with visiting(browser, service.url, viewport={"width": width, "height": 800}) as visit:
        fits(visit)
        visit.choose(photos[0])
        fits(visit)
        visit.choose(*photos[1:])
        visit.page.locator("#sheet summary").click()
        visit.page.wait_for_selector("#table tbody tr")
        fits(visit)
        visit.page.locator("#open-teach").click()
        visit.page.locator("#teach-parts summary").click()
        fits(visit)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser: Any, service: Served, photos: list[Path], scheme: str) -> None:
    with visiting(browser, service.url, color_scheme=scheme) as visit:
        page = visit.page
        accessible(visit)
        visit.choose(*photos)
        page.get_by_role("button", name="Heat map").first.click()
        page.locator("img.heat").wait_for()
        page.locator("#sheet summary").click()
        page.wait_for_selector("#table tbody tr")
        accessible(visit)
        page.get_by_role("button", name="Teach this car").first.click()
        page.locator("#teach-parts summary").click()
        page.wait_for_selector("#taught li")
        accessible(visit)
        page.locator("#teach-close").click()
        page.locator(".enlarge").first.click()
        page.wait_for_selector("#viewer img")
        accessible(visit)


def test_dark_is_dark_and_light_is_light(browser: Any, service: Served) -> None:
    grounds = {}
    for scheme in ("light", "dark"):
        with visiting(browser, service.url, color_scheme=scheme) as visit:
            shot = visit.page.screenshot()
            grounds[scheme] = np.asarray(_opened(shot)).mean()
    assert grounds["dark"] < 60
    assert grounds["light"] > 195


def test_who_wants_less_motion_has_none(browser: Any, service: Served, photos: list[Path]) -> None:
    def moving(motion: str) -> int:
        with visiting(browser, service.url, reduced_motion=motion) as visit:
            visit.page.route("**/v1/identify*", lambda route: None)  # never answered
            visit.page.set_input_files("#files", str(photos[0]))
            visit.page.wait_for_selector(".card[data-state=looking]")
            running = "document.getAnimations().filter((one) => one.playState === 'running').length"
            return int(visit.page.evaluate(running))

    assert moving("no-preference") > 0
    assert moving("reduce") == 0


def test_pictures_of_the_page(
    browser: Any, service: Served, photos: list[Path], tmp_path: Path
) -> None:
    """Writes what docs/page/ shows, where CARSPOTTER_PAGE_PICTURES names a folder for it."""
    folder = Path(os.environ.get("CARSPOTTER_PAGE_PICTURES", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)

    def keep(visit: Visit, name: str, *, full: bool = False) -> None:
        visit.page.wait_for_timeout(400)  # until the fading-in has ended
        image = _opened(visit.page.screenshot(full_page=full))
        assert len(image.getcolors(1 << 24) or []) > 50
        # The colours of a palette suffice for a page, and take a quarter of the bytes.
        image.convert("RGB").quantize(128).save(folder / f"{name}.png", optimize=True)

    with visiting(browser, service.url, color_scheme="light") as visit:
        keep(visit, "light-empty")
        visit.choose(photos[0])
        keep(visit, "light-one")
        visit.choose(*photos[1:])
        visit.card("driveway.jpg").get_by_role("button", name="Heat map").click()
        visit.page.locator("img.heat").wait_for()
        visit.page.evaluate("scrollTo(0, 0)")
        keep(visit, "light-many", full=True)
    with visiting(browser, service.url, color_scheme="dark") as visit:
        visit.choose(*photos[:3])
        visit.page.evaluate("scrollTo(0, 0)")
        keep(visit, "dark-many")
        visit.card("driveway.jpg").get_by_role("button", name="Teach this car").click()
        visit.page.wait_for_selector("#taught li")
        keep(visit, "dark-teach")
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    with visiting(browser, service.url, color_scheme="light", **phone) as visit:
        visit.choose(photos[0])
        visit.page.evaluate("scrollTo(0, 0)")
        visit.page.set_viewport_size({"width": 390, "height": 1320})
        keep(visit, "phone-one")


def _opened(data: bytes) -> Any:
    import io

    from PIL import Image

    return Image.open(io.BytesIO(data))
