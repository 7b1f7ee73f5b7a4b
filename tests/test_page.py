"""The page of `carspotter serve`: in a real browser, against the service in its own process."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import pillow_heif
import pytest
import tiny_detectors
from conftest import encoded
from page_visit import Visit, heading, photo, said_aloud, visiting
from PIL import Image
from serve_process import Served, served
from tiny_model import BLACK, BLUE, GREEN, LABELS, RED, plain

# --- what it says of itself ----------------------------------------------------------------------


def test_the_page_says_what_the_model_knows(visit: Visit) -> None:
    facts = visit.page.locator("#facts").inner_text()
    assert "Knows 4 cars" in facts
    assert "Up to model year 2012" in facts
    assert "Accuracy not measured" in facts
    assert "Photos stay on this machine" in facts
    assert "nothing of a photo is kept" in facts
    assert "tiny 1" in visit.page.locator("#about").inner_text()
    assert not visit.page.locator("#results").is_visible()
    assert not visit.page.locator("#open-teach").is_visible()


def test_the_embedded_model_says_how_good_it_is(browser: Any, tmp_path: Path) -> None:
    with served(tmp_path) as service, visiting(browser, service.url) as visit:
        facts = visit.page.locator("#facts").inner_text()
        said = visit.page.evaluate("fetch('v1/model').then((answer) => answer.json())")
        measured = said["accuracy"]["measured"]
        assert "Knows 196 cars" in facts
        assert "Up to model year 2012" in facts
        assert f"Right on {100 * measured['exact']['top1']:.1f} %" in facts
        assert f"{measured['pictures']:,} test photos" in facts
        assert f"for the make alone {100 * measured['make']['top1']:.1f} %" in facts


# --- the ways in ---------------------------------------------------------------------------------


def test_several_photos_with_a_broken_one_among_them(visit: Visit, tmp_path: Path) -> None:
    whole = photo(tmp_path, "red.png", RED).read_bytes()
    cut = tmp_path / "cut.png"
    cut.write_bytes(whole[: len(whole) // 2])
    text = tmp_path / "text.jpg"
    text.write_text("no picture")
    visit.choose(
        tmp_path / "red.png",
        cut,
        photo(tmp_path, "green.png", GREEN),
        photo(tmp_path, "blue.png", BLUE),
        text,
        photo(tmp_path, "black.png", BLACK),
    )
    assert heading(visit, "red.png") == f"It is an {LABELS[0]}"
    assert visit.card("red.png").locator(".sure").inner_text() == "Almost certain, over 99 %"
    assert "Nothing else comes near" in visit.card("red.png").inner_text()
    assert heading(visit, "green.png") == "An Audi S4"
    assert "Which body and year is not clear." in visit.card("green.png").inner_text()
    bars = visit.card("green.png").locator(".bars li")
    assert sorted(bars.locator(".name").all_inner_texts()) == sorted(LABELS[:2])
    assert bars.locator(".figure").all_inner_texts() == ["50 %", "50 %"]
    track = bars.first.locator(".track").bounding_box()
    share = bars.first.locator(".share").bounding_box()
    assert share["width"] == pytest.approx(track["width"] / 2, rel=0.02)
    assert heading(visit, "blue.png") == "An Audi"
    assert "Which model is not clear." in visit.card("blue.png").inner_text()
    assert heading(visit, "black.png") == "Not a car I know"
    assert visit.card("black.png").locator(".sure").count() == 0
    assert heading(visit, "cut.png") == "The picture is damaged"
    assert "Take another copy" in visit.card("cut.png").inner_text()
    assert heading(visit, "text.jpg") == "This is no picture that can be read"
    assert visit.card("text.jpg").get_by_role("button", name="Try again").count() == 0
    assert visit.card("text.jpg").get_by_text("No preview").is_visible()
    summary = visit.page.locator("#summary").inner_text()
    assert summary == "6 photos · 3 named · 1 not known · 2 failed"
    names = visit.page.locator(".card .file").all_inner_texts()
    assert names == ["red.png", "cut.png", "green.png", "blue.png", "text.jpg", "black.png"]
    assert len(visit.refused) == 2


def test_dropped_photos(visit: Visit) -> None:
    visit.drop([("one.png", encoded(plain(RED), "PNG")), ("two.png", encoded(plain(BLUE), "PNG"))])
    visit.settle()
    assert heading(visit, "one.png") == f"It is an {LABELS[0]}"
    assert heading(visit, "two.png") == "An Audi"
    said_aloud(visit, f"one.png: It is an {LABELS[0]}, over 99 %")


def test_a_dropped_address_is_not_fetched(visit: Visit) -> None:
    visit.page.evaluate(
        """() => {
            const dataTransfer = new DataTransfer();
            dataTransfer.setData("text/uri-list", "https://example.org/car.jpg");
            document.body.dispatchEvent(new DragEvent(
                "drop", { dataTransfer, bubbles: true, cancelable: true }));
        }"""
    )
    visit.page.wait_for_selector("#note:not([hidden])")
    assert "fetches nothing from elsewhere" in visit.page.locator("#note").inner_text()
    assert visit.page.locator(".card").count() == 0


def test_a_pasted_picture(browser: Any, service: Served) -> None:
    with visiting(browser, service.url, permissions=["clipboard-read", "clipboard-write"]) as visit:
        visit.page.evaluate(
            """async () => {
                const canvas = new OffscreenCanvas(60, 40);
                const context = canvas.getContext("2d");
                context.fillStyle = "rgb(255, 0, 0)";
                context.fillRect(0, 0, 60, 40);
                const blob = await canvas.convertToBlob({ type: "image/png" });
                await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
            }"""
        )
        visit.page.keyboard.press("Control+V")
        visit.settle()
        assert heading(visit, "pasted-1.png") == f"It is an {LABELS[0]}"
        visit.page.evaluate("navigator.clipboard.writeText('a car')")
        visit.page.keyboard.press("Control+V")
        visit.page.wait_for_selector("#note:not([hidden])")
        assert "no picture on the clipboard" in visit.page.locator("#note").inner_text()


def test_a_phone_offers_its_camera(browser: Any, service: Served, tmp_path: Path) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    with visiting(browser, service.url, **phone) as visit:
        with visit.page.expect_file_chooser() as asked:
            visit.page.get_by_role("button", name="Take a photo").tap()
        assert asked.value.element.get_attribute("capture") == "environment"
        asked.value.set_files(photo(tmp_path, "taken.png", RED))
        visit.settle()
        assert heading(visit, "taken.png") == f"It is an {LABELS[0]}"


def test_a_desktop_does_not(visit: Visit) -> None:
    assert not visit.page.locator("#photograph").is_visible()


def test_a_photo_that_the_browser_cannot_show(visit: Visit, tmp_path: Path) -> None:
    file = tmp_path / "phone.heic"
    pillow_heif.from_pillow(plain(RED, (160, 120))).save(file, quality=100)
    visit.choose(file)
    assert heading(visit, "phone.heic") == f"It is an {LABELS[0]}"
    assert visit.card("phone.heic").get_by_text("No preview").is_visible()


def test_many_photos_go_a_few_at_a_time(visit: Visit, tmp_path: Path) -> None:
    under_way, most = 0, 0

    def began(request: Any) -> None:
        nonlocal under_way, most
        under_way += "/v1/identify" in request.url
        most = max(most, under_way)

    def ended(request: Any) -> None:
        nonlocal under_way
        under_way -= "/v1/identify" in request.url

    visit.page.on("request", began)
    visit.page.on("requestfinished", ended)
    visit.choose(*(photo(tmp_path, f"{number}.png", RED) for number in range(12)))
    assert most in (2, 3)
    assert visit.page.locator("#summary").inner_text() == "12 photos · 12 named"


# --- the cards -----------------------------------------------------------------------------------


def test_the_heat_map_comes_and_goes(visit: Visit, tmp_path: Path) -> None:
    visit.choose(photo(tmp_path, "red.png", RED))
    card = visit.card("red.png")
    button = card.get_by_role("button", name="Heat map")
    assert button.get_attribute("aria-pressed") == "false"
    button.click()
    heat = card.locator("img.heat")
    heat.wait_for()
    visit.until("document.querySelector('img.heat').naturalWidth >= 640")
    assert button.get_attribute("aria-pressed") == "true"
    assert "Yellow" in card.locator("[role=status]").inner_text()
    button.click()
    assert heat.count() == 0
    assert button.get_attribute("aria-pressed") == "false"


def test_a_model_without_heat_maps_has_no_button(browser: Any, tmp_path: Path, model: Path) -> None:
    import tiny_model

    plainer = tiny_model.write(tmp_path / "headless.onnx", head=None)
    with served(tmp_path, "--model", plainer) as service, visiting(browser, service.url) as visit:
        visit.choose(photo(tmp_path, "red.png", RED))
        assert heading(visit, "red.png") == f"It is an {LABELS[0]}"
        assert visit.page.get_by_role("button", name="Heat map").count() == 0


def test_several_cars_on_a_photo(browser: Any, model: Path, tmp_path: Path) -> None:
    width, height = tiny_detectors.SIZE
    boxes = [(0, 0, width / 2, height), (width / 2 + 2, height / 4, width, height)]
    detector = tiny_detectors.localiser(tmp_path / "cars.onnx", boxes, (2.4, 2.0))
    scene = plain(RED, (400, 320))
    scene.paste(BLUE, (200, 0, 400, 320))
    scene.save(tmp_path / "two.png")
    options = ("--model", model, "--detector", detector)
    with served(tmp_path, *options) as service, visiting(browser, service.url) as visit:
        visit.choose(tmp_path / "two.png")
        card = visit.card("two.png")
        assert heading(visit, "two.png") == f"It is an {LABELS[0]}"
        assert card.locator(".boxes rect:not(.shade)").count() == 2
        frame = card.locator(".boxes rect.first").bounding_box()
        picture = card.locator(".picture").bounding_box()
        # The photo is wider than the card's frame of 4:3, or as wide: its left half is the car.
        assert frame["width"] == pytest.approx(picture["height"] * 400 / 320 / 2, rel=0.06)
        also = card.locator(".further li")
        assert also.locator("summary").inner_text().startswith("An Audi; which model is not clear")
        also.locator("summary").click()
        assert also.locator(".bars li").first.is_visible()
        # A photo that lies on its side: its boxes are those of the upright one.
        turned = Image.Exif()
        turned[0x0112] = 6
        scene.save(tmp_path / "turned.jpg", exif=turned)
        visit.choose(tmp_path / "turned.jpg")
        boxes = visit.card("turned.jpg").locator(".boxes")
        assert boxes.get_attribute("viewBox") == "0 0 320 400"
        visit.page.get_by_role("button", name="Remove turned.jpg").click()
        lines = saved(visit)
        assert [(row["photo"], row["car"], row["level"]) for row in lines] == [
            ("two.png", "1", "exact"),
            ("two.png", "2", "make"),
        ]


def test_a_photo_at_full_size(visit: Visit, tmp_path: Path) -> None:
    visit.choose(photo(tmp_path, "red.png", RED))
    visit.page.get_by_role("button", name="Enlarge red.png").click()
    viewer = visit.page.locator("#viewer")
    assert viewer.get_by_role("img", name="red.png").is_visible()
    visit.page.keyboard.press("Escape")
    assert not viewer.is_visible()


def test_names_of_files_are_text(visit: Visit) -> None:
    name = "<img src=x onerror=alert(1)>.png"
    visit.drop([(name, encoded(plain(RED), "PNG"))])
    visit.settle()
    assert visit.page.locator(".card .file").inner_text() == name
    assert visit.page.locator("img[src=x]").count() == 0


def test_cards_are_removed(visit: Visit, tmp_path: Path) -> None:
    visit.choose(*(photo(tmp_path, f"{name}.png", RED) for name in "abc"))
    visit.page.get_by_role("button", name="Remove b.png").click()
    assert visit.page.locator(".card .file").all_inner_texts() == ["a.png", "c.png"]
    focused = "document.activeElement.getAttribute('aria-label')"
    assert visit.page.evaluate(focused) == "Remove c.png"
    visit.page.get_by_role("button", name="Clear all").click()
    assert visit.page.locator(".card").count() == 0
    visit.until("document.getElementById('results').hidden")
    assert visit.page.evaluate("document.activeElement.id") == "choose"


# --- the table -----------------------------------------------------------------------------------


def saved(visit: Visit) -> list[dict[str, str]]:
    """The rows of the CSV file that the page gives."""
    with visit.page.expect_download() as asked:
        visit.page.get_by_role("button", name="Download CSV").click()
    assert asked.value.suggested_filename == "carspotter.csv"
    data = Path(asked.value.path()).read_bytes()
    assert re.sub(rb"\r\n", b"", data).find(b"\n") == -1
    return list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True))


def test_the_results_as_csv(visit: Visit, tmp_path: Path) -> None:
    red, green = encoded(plain(RED), "PNG"), encoded(plain(GREEN), "PNG")
    names = ["=1+1.png", '"quoted", twice.png', "-2.png", "+3.png", "@cmd.png", "plain.png"]
    visit.drop([(name, red) for name in names])
    visit.settle()
    visit.drop([("ü green.png", green), ("bad.png", b"nothing")])
    visit.settle()
    rows = saved(visit)
    shown = [row["photo"] for row in rows]
    assert shown == [
        "'=1+1.png", names[1], "'-2.png", "'+3.png", "'@cmd.png", "plain.png", "ü green.png",
        "bad.png",
    ]  # fmt: skip
    assert list(rows[0])[:9] == [
        "photo", "car", "level", "label", "make", "model", "body", "year", "confidence",
    ]  # fmt: skip
    first, green_row, bad_row = rows[0], rows[6], rows[7]
    assert (first["level"], first["label"], first["make"]) == ("exact", LABELS[0], "Audi")
    assert (first["body"], first["year"], first["error"]) == ("Sedan", "2012", "")
    assert float(first["confidence"]) > 0.99
    assert (green_row["level"], green_row["label"], green_row["year"]) == ("model", "Audi S4", "")
    assert bad_row["label"] == ""
    assert "no picture" in bad_row["error"]
    visit.page.locator("#sheet summary").click()
    visit.page.wait_for_selector("#table tbody tr")
    assert visit.page.locator("#table tbody tr").count() == 8
    assert visit.page.locator("#table tbody th").first.inner_text() == "=1+1.png"


# --- the keyboard alone --------------------------------------------------------------------------


def test_by_keyboard_alone(visit: Visit, tmp_path: Path) -> None:
    page, choosers = visit.page, []
    page.on("filechooser", lambda chooser: choosers.append(chooser))

    def tab_to(name: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            label = page.evaluate(
                "(document.activeElement.getAttribute('aria-label')"
                " ?? document.activeElement.textContent).trim()"
            )
            if label == name:
                # Whoever sees must see where the keyboard is.
                outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                assert outline == "solid", name
                return
        pytest.fail(f"Tab never comes to {name}")

    tab_to("Choose photos")
    page.keyboard.press("Enter")
    waited = 0
    while not choosers and waited < 30_000:
        page.wait_for_timeout(100)
        waited += 100
    choosers[0].set_files([photo(tmp_path, "red.png", RED), photo(tmp_path, "blue.png", BLUE)])
    visit.settle()
    page.locator("body").evaluate("() => document.activeElement.blur()")
    tab_to("Skip to the results")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "results"
    tab_to("Enlarge red.png")
    page.keyboard.press("Enter")
    assert page.locator("#viewer").is_visible()
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Enlarge red.png"
    tab_to("Heat map")
    page.keyboard.press("Space")
    visit.card("red.png").locator("img.heat").wait_for()
    tab_to("Remove red.png")
    page.keyboard.press("Enter")
    assert page.locator(".card").count() == 1
    tab_to("All results as a table")
    page.keyboard.press("Enter")
    page.wait_for_selector("#table tbody tr")
