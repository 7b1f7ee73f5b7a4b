"""The page of `carspotter serve`: when things go wrong, and when cars are taught."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

from conftest import encoded
from page_visit import Visit, free_port, heading, photo, said_aloud, visiting
from serve_process import served
from taught_cars import PLUM, model_with_space, photos
from tiny_model import LABELS, RED, plain

KEY = "a-key-of-the-tests-0123"


# --- when it does not go well --------------------------------------------------------------------


def test_a_file_that_is_too_large_is_not_sent(browser: Any, model: Path, tmp_path: Path) -> None:
    options = ("--model", model, "--max-bytes", "200000")
    with served(tmp_path, *options) as service, visiting(browser, service.url) as visit:
        sent = []
        visit.page.on("request", lambda request: sent.append(request.url))
        visit.drop([("huge.png", encoded(plain(RED), "PNG") + bytes(300_000))])
        visit.settle()
        assert heading(visit, "huge.png") == "The file is too large"
        assert (
            "It has 300 kB, and this server takes up to 200 kB"
            in visit.card("huge.png").inner_text()
        )
        # Many answers at once are not read out one by one; this one has been, before they come.
        said_aloud(visit, "huge.png: ")
        visit.drop([(f"{n}.png", bytes(300_000)) for n in range(5)])
        said_aloud(visit, "5 photos looked at.")
        assert not [url for url in sent if "/v1/identify" in url]


def test_a_busy_server_is_asked_again(visit: Visit, tmp_path: Path) -> None:
    turned_away = 0

    def answer(route: Any) -> None:
        nonlocal turned_away
        turned_away += 1
        if turned_away > 2:
            route.continue_()
            return
        route.fulfill(
            status=(503, 429)[turned_away - 1],
            headers={"Retry-After": "2", "Content-Type": "application/problem+json"},
            body='{"title": "Service Unavailable", "code": "busy", "detail": "full"}',
        )

    visit.page.route("**/v1/identify*", answer)
    visit.page.set_input_files("#files", str(photo(tmp_path, "red.png", RED)))
    visit.page.get_by_text("The server is busy").wait_for()
    assert re.search(r"Trying again in [12] s", visit.card("red.png").inner_text())
    visit.settle()
    assert heading(visit, "red.png") == f"It is an {LABELS[0]}"
    assert turned_away == 3


def test_what_took_too_long_is_not_repeated_unasked(visit: Visit, tmp_path: Path) -> None:
    tries = []

    def answer(route: Any) -> None:
        tries.append(route.request.url)
        route.fulfill(
            status=503,
            headers={"Retry-After": "1", "Content-Type": "application/problem+json"},
            body='{"title": "Service Unavailable", "code": "deadline", "detail": "not done"}',
        )

    visit.page.route("**/v1/identify*", answer)
    visit.choose(photo(tmp_path, "red.png", RED))
    assert heading(visit, "red.png") == "The server took too long"
    assert len(tries) == 1
    visit.page.unroute("**/v1/identify*")
    visit.card("red.png").get_by_role("button", name="Try again").click()
    visit.page.get_by_role("heading", name=LABELS[0]).wait_for()


def test_a_server_that_is_gone_and_comes_back(browser: Any, model: Path, tmp_path: Path) -> None:
    port, picture = free_port(), photo(tmp_path, "red.png", RED)
    with contextlib.ExitStack() as opened:
        with served(tmp_path, "--model", model, "--port", str(port)) as service:
            visit = opened.enter_context(visiting(browser, service.url))
        visit.choose(picture)
        assert heading(visit, "red.png") == "The server does not answer"
        opened.enter_context(served(tmp_path, "--model", model, "--port", str(port)))
        visit.card("red.png").get_by_role("button", name="Try again").click()
        visit.page.get_by_role("heading", name=LABELS[0]).wait_for()
        # The button is gone; the keyboard goes on from the card.
        assert visit.page.evaluate("document.activeElement.tagName") == "H3"


def test_a_server_with_a_key(browser: Any, model: Path, tmp_path: Path) -> None:
    env = {"CARSPOTTER_API_KEY": KEY}
    with (
        served(tmp_path, "--model", model, **env) as service,
        visiting(browser, service.url, wait=False) as visit,
    ):
        dialog = visit.page.locator("#key-dialog")
        dialog.wait_for()
        visit.page.get_by_label("API key").fill("not-the-key-of-the-tests")
        visit.page.keyboard.press("Enter")
        dialog.get_by_text("That key was not accepted").wait_for()
        visit.page.get_by_role("button", name="Cancel").click()
        visit.page.get_by_text("The server asks for a key").wait_for()
        visit.page.set_input_files(
            "#files", [str(photo(tmp_path, f"{name}.png", RED)) for name in "abcde"]
        )
        dialog.wait_for()
        visit.page.get_by_label("API key").fill(KEY)
        visit.page.keyboard.press("Enter")
        visit.settle()
        for name in "abcde":
            assert heading(visit, f"{name}.png") == f"It is an {LABELS[0]}"
        kept = "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])"
        assert visit.page.evaluate(kept) == '[{},{},""]'


# --- teaching ------------------------------------------------------------------------------------


def test_a_car_is_taught_and_forgotten(browser: Any, tmp_path: Path) -> None:
    model = model_with_space(tmp_path)
    options = ("--model", model, "--garage", tmp_path / "garage.npz", "--allow-teaching")
    with served(tmp_path, *options) as service, visiting(browser, service.url) as visit:
        page = visit.page
        dark = photos(tmp_path / "dark", PLUM, 3)
        visit.choose(dark[0])
        assert heading(visit, "0.png") == "An Audi S4"
        visit.card("0.png").get_by_role("button", name="Teach this car").click()
        assert page.evaluate("document.activeElement.id") == "teach-name"
        page.get_by_label("Full name").fill("Lada Niva SUV 1977")
        page.locator("#teach-parts summary").click()
        page.get_by_label("Make").fill("Lada")
        page.get_by_label("Year").fill("1977")
        page.set_input_files("#teach-files", str(dark[1]))
        assert page.locator("#teach-photos li").count() == 2
        page.get_by_role("button", name="Teach", exact=True).click()
        page.get_by_text("Lada Niva SUV 1977 is known from 2 photos now, 2 of them new.").wait_for()
        page.locator("#taught li").get_by_text("2 photos", exact=True).wait_for()
        page.get_by_role("button", name="Add photos of Lada Niva SUV 1977").click()
        page.set_input_files("#teach-files", str(dark[2]))
        page.get_by_role("button", name="Teach", exact=True).click()
        page.get_by_text("known from 3 photos now, 1 of them new").wait_for()
        # A name that is the model's own is refused, in the service's words.
        page.get_by_label("Full name").fill(LABELS[0])
        page.set_input_files("#teach-files", str(dark[2]))
        page.get_by_role("button", name="Teach", exact=True).click()
        page.locator("#teach-outcome .bad").wait_for()
        page.locator("#teach-close").click()
        page.get_by_text("And 1 car taught here").wait_for()
        page.get_by_role("button", name="Look again").click()
        page.get_by_role("heading", name="It is a Lada Niva SUV 1977").wait_for()
        page.locator("#open-teach").click()
        page.get_by_role("button", name="Forget Lada Niva SUV 1977").click()
        page.get_by_role("button", name="Really forget Lada Niva SUV 1977?").click()
        page.get_by_text("Lada Niva SUV 1977 is forgotten").wait_for()
        page.get_by_text("No car yet").wait_for()


def test_many_photos_are_taught_in_several_loads(browser: Any, model: Path, tmp_path: Path) -> None:
    options = ("--model", model, "--garage", tmp_path / "garage.npz", "--allow-teaching")
    with (
        served(tmp_path, *options, "--max-photos", "2") as service,
        visiting(browser, service.url) as visit,
    ):
        page = visit.page
        page.locator("#open-teach").click()
        page.get_by_label("Full name").fill("Lada Niva SUV 1977")
        page.get_by_role("button", name="Teach", exact=True).click()
        page.get_by_text("There is no photo yet").wait_for()
        visit.drop([(f"{n}.png", encoded(plain((n, 0, 6)), "PNG")) for n in range(5)])
        page.get_by_role("button", name="Teach", exact=True).click()
        page.get_by_text("known from 5 photos now, 5 of them new").wait_for()
