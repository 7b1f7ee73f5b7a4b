"""What `carspotter serve` answers, asked over HTTP."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx2
import numpy as np
import pytest
import tiny_model
from conftest import Carspotter
from page_visit import chromium
from PIL import Image
from serve_process import Served, parts, photo, served, wait_for
from tiny_model import ANSWERS, BLACK, BLUE, GREEN, RED

from carspotter.serve.schemas import Problem, Results

RED_PNG, GREEN_PNG = photo(RED), photo(GREEN)
NO_IMAGE = b"a letter, not a photo"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def service(folder: Path, model: Path) -> Iterator[Served]:
    with served(folder, "--model", model, "--max-photos", "8") as found:
        yield found


@pytest.fixture
def client(service: Served) -> httpx2.Client:
    return service.client


def problem(answer: httpx2.Response) -> dict[str, object]:
    """A problem document, checked against its schema."""
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    Problem.model_validate(document)
    assert document["status"] == answer.status_code
    assert document["instance"] == answer.headers["x-request-id"]
    return document


def test_photos_are_answered_in_order_by_the_names_of_their_files(client: httpx2.Client) -> None:
    colours = (BLUE, RED, BLACK, GREEN)
    answer = client.post(
        "/v1/identify", files=parts(*((f"{n}.png", photo(c)) for n, c in enumerate(colours)))
    )
    assert answer.status_code == 200
    results = answer.json()["results"]
    Results.model_validate(answer.json())
    assert [found["photo"] for found in results] == ["0.png", "1.png", "2.png", "3.png"]
    assert [(f["answer"]["level"], f["answer"]["label"]) for f in results] == [
        ANSWERS[colour] for colour in colours
    ]


@pytest.mark.parametrize("media_type", ["image/png", "image/jpeg", "application/octet-stream", ""])
def test_one_photo_as_the_whole_body_whatever_it_is_called(
    client: httpx2.Client, media_type: str
) -> None:
    headers = {"Content-Type": media_type} if media_type else {}
    answer = client.post("/v1/identify?top=1", content=RED_PNG, headers=headers)
    (found,) = answer.json()["results"]
    assert found["answer"]["label"] == "Audi S4 Sedan 2012"
    assert len(found["candidates"]) == 1


def test_the_result_is_the_one_of_the_command_line(
    client: httpx2.Client, model: Path, tmp_path: Path, carspotter: Carspotter
) -> None:
    file = tmp_path / "one.png"
    file.write_bytes(GREEN_PNG)
    said = json.loads(carspotter("identify", file, "--model", model, "--json").stdout)
    (found,) = client.post("/v1/identify", files=parts(("one.png", GREEN_PNG))).json()["results"]
    assert found == {**said, "photo": "one.png"}


def test_a_broken_photo_among_others_has_an_error_of_its_own(client: httpx2.Client) -> None:
    answer = client.post(
        "/v1/identify", files=parts(("bad.png", RED_PNG[:60]), ("good.png", RED_PNG))
    )
    assert answer.status_code == 200
    bad, good = answer.json()["results"]
    assert (bad["answer"], bad["error"]["code"]) == (None, "broken")
    assert "bad.png" in bad["error"]["message"]
    assert (good["answer"]["label"], good["error"]) == ("Audi S4 Sedan 2012", None)


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"", 400, "empty"),
        (NO_IMAGE, 415, "not_an_image"),
        (RED_PNG[:60], 422, "broken"),
        (photo(RED, (8, 8)), 422, "too_small"),
        (photo(RED, (9000, 6000)), 413, "too_large"),
    ],
)
def test_where_no_photo_can_be_used_the_answer_is_a_problem(
    client: httpx2.Client, content: bytes, status: int, code: str
) -> None:
    for files in (parts(("a.png", content)), parts(("a.png", content), ("b.png", NO_IMAGE))):
        answer = client.post("/v1/identify", files=files)
        document = problem(answer)
        assert (answer.status_code, document["code"]) == (status, code)
        assert [error["photo"] for error in document["errors"]] == [name for _, (name, _) in files]


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        ({"content": b""}, 400, "no_photo"),
        ({"files": [("picture", ("a.png", RED_PNG))]}, 400, "unknown_part"),
        ({"files": parts(*[("a.png", RED_PNG)] * 9)}, 413, "too_many_photos"),
        ({"data": {"photo": "x"}}, 415, "unsupported_type"),
        ({"content": RED_PNG, "headers": {"Content-Encoding": "gzip"}}, 415, "unsupported_type"),
        (
            {"content": b"--x\r\n", "headers": {"Content-Type": "multipart/form-data"}},
            400,
            "bad_multipart",
        ),
        (
            {
                "content": b'--x\r\nContent-Disposition: form-data; name="photo"\r\n\r\ncut',
                "headers": {"Content-Type": "multipart/form-data; boundary=x"},
            },
            400,
            "bad_multipart",
        ),
    ],
)
def test_bodies_that_are_wrong(
    client: httpx2.Client, request_: dict[str, object], status: int, code: str
) -> None:
    answer = client.post("/v1/identify", **request_)
    assert (answer.status_code, problem(answer)["code"]) == (status, code)


@pytest.mark.parametrize(
    "query",
    [
        "top=0",
        "top=x",
        "crop=maybe",
        "box=1,2,3",
        "box=5,5,5,9",
        "coverage=2",
        "coverage=0.5",
        "a=b",
    ],
)
def test_parameters_that_are_wrong(client: httpx2.Client, query: str) -> None:
    answer = client.post(f"/v1/identify?{query}", content=RED_PNG)
    assert (answer.status_code, problem(answer)["code"]) == (400, "bad_parameter")


def test_a_box_chooses_what_is_looked_at(client: httpx2.Client) -> None:
    both = Image.new("RGB", (100, 50), RED)
    both.paste(GREEN, (50, 0, 100, 50))
    buffer = io.BytesIO()
    both.save(buffer, "PNG")
    answer = client.post("/v1/identify?box=50,0,100,50", content=buffer.getvalue())
    (found,) = answer.json()["results"]
    assert (found["box"], found["answer"]["label"]) == ([50, 0, 100, 50], "Audi S4")
    outside = client.post("/v1/identify?box=500,0,600,50", content=buffer.getvalue())
    assert (outside.status_code, problem(outside)["code"]) == (422, "box_outside")


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ('filename="a%22b 100%25.jpg"', 'a"b 100%25.jpg'),  # as browsers and curl write a quote
        ("filename*=UTF-8''%e2%82%ac%20%22r%22.jpg", '\u20ac "r".jpg'),
        ("filename=\"plain.jpg\"; filename*=iso-8859-1'de'k%e4fer.jpg", "k\u00e4fer.jpg"),
        ("filename*=UTF-8''..%2fup%2fa.jpg", "a.jpg"),
    ],
)
def test_names_of_files_as_clients_write_them(client: httpx2.Client, sent: str, name: str) -> None:
    head = f'--x\r\nContent-Disposition: form-data; name="photo"; {sent}\r\n\r\n'.encode()
    answer = client.post(
        "/v1/identify",
        content=head + RED_PNG + b"\r\n--x--\r\n",
        headers={"Content-Type": "multipart/form-data; boundary=x"},
    )
    assert [found["photo"] for found in answer.json()["results"]] == [name]


def test_names_of_files_lose_folders_and_signs_that_no_name_has(client: httpx2.Client) -> None:
    names = ("..\\..\\boot.png", "/etc/a\x1bb.png", "Škoda 東京.png", "x" * 1000)
    answer = client.post("/v1/identify", files=parts(*((name, RED_PNG) for name in names)))
    found = [result["photo"] for result in answer.json()["results"]]
    assert (found[0], found[2], found[3]) == ("boot.png", "Škoda 東京.png", "x" * 255)
    assert all("/" not in name and name.isprintable() for name in found)


def test_the_model_says_what_it_knows_and_what_is_allowed(client: httpx2.Client) -> None:
    said = client.get("/v1/model").json()
    assert [name["label"] for name in said["classes"]] == list(tiny_model.LABELS)
    assert said["classes"][0] == {
        "label": "Audi S4 Sedan 2012",
        "make": "Audi",
        "model": "S4",
        "body": "Sedan",
        "year": 2012,
    }
    assert (said["name"], said["input_size"], said["newest_year"]) == ("tiny", 32, 2012)
    assert (said["explains"], said["teaching"], said["garage"]) == (True, False, None)
    assert said["limits"] == {"max_bytes": 32 << 20, "max_pixels": 50_000_000, "max_photos": 8}


def test_a_heat_map_is_a_picture_of_bounded_size(client: httpx2.Client) -> None:
    answer = client.post("/v1/explain", content=photo(RED, (3000, 1500)))
    assert answer.headers["content-type"] == "image/png"
    picture = Image.open(io.BytesIO(answer.content))
    assert picture.size == (1024, 512)
    assert not (np.asarray(picture.convert("RGB")) == RED).all()  # something was drawn


def test_a_heat_map_of_another_class(client: httpx2.Client) -> None:
    top = client.post("/v1/explain", files=parts(("a.png", GREEN_PNG)))
    other = client.post(
        "/v1/explain",
        params={"label": "smart fortwo Convertible 2012"},
        files=parts(("a.png", GREEN_PNG)),
    )
    assert (top.status_code, other.status_code) == (200, 200)
    assert top.content != other.content
    wrong = client.post("/v1/explain", params={"label": "Audi S4 Sedan 2013"}, content=GREEN_PNG)
    document = problem(wrong)
    assert (wrong.status_code, document["code"]) == (400, "bad_parameter")
    assert "Audi S4 Sedan 2012" in str(document["detail"])


def test_only_one_photo_is_explained_at_a_time(client: httpx2.Client) -> None:
    answer = client.post("/v1/explain", files=parts(("a", RED_PNG), ("b", RED_PNG)))
    assert (answer.status_code, problem(answer)["code"]) == (400, "too_many_photos")
    broken = client.post("/v1/explain", content=RED_PNG[:60])
    assert (broken.status_code, problem(broken)["code"]) == (422, "broken")


def test_a_model_without_heat_maps_says_so(folder: Path) -> None:
    file = tiny_model.write(folder / "headless.onnx", head=None)
    with served(folder, "--model", file) as found:
        assert found.client.get("/v1/model").json()["explains"] is False
        answer = found.client.post("/v1/explain", content=RED_PNG)
        assert (answer.status_code, problem(answer)["code"]) == (501, "cannot_explain")


def test_teaching_is_off_by_default(client: httpx2.Client) -> None:
    for method, path in (("GET", ""), ("POST", ""), ("DELETE", "/Audi")):
        answer = client.request(method, f"/v1/cars{path}")
        assert (answer.status_code, problem(answer)["code"]) == (403, "teaching_off")


def test_unknown_addresses_and_methods_are_problems_too(client: httpx2.Client) -> None:
    assert problem(client.get("/v2"))["code"] == "not_found"
    answer = client.get("/v1/identify")
    assert (answer.status_code, problem(answer)["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"
    assert client.options("/v1/cars").headers["allow"] == "GET, POST"


def test_ids_of_requests_are_kept_where_they_are_sane(client: httpx2.Client) -> None:
    assert client.get("/healthz", headers={"X-Request-Id": "a-1.b_2"}).headers["x-request-id"] == (
        "a-1.b_2"
    )
    for odd in ("a b", "x" * 65, '"><script>', ""):
        given = client.get("/healthz", headers={"X-Request-Id": odd}).headers["x-request-id"]
        assert re.fullmatch("[0-9a-f]{32}", given)


def test_every_answer_is_guarded(client: httpx2.Client) -> None:
    for path in ("/", "/healthz", "/docs", "/nothing", "/v1/model"):
        headers = client.get(path).headers
        assert "server" not in headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "set-cookie" not in headers
        assert "access-control-allow-origin" not in headers


def test_the_page_and_its_files_are_fetched_once(client: httpx2.Client) -> None:
    page = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    linked = set(re.findall(r'(?:src|href)="(page/[^"]+)"', page.text))
    assert linked
    for name in linked:
        answer = client.get(f"/{name}")
        kind = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
        assert answer.headers["content-type"].startswith(kind[name.rpartition(".")[2]])
        again = client.get(f"/{name}", headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    assert client.head("/").headers["content-length"] == str(len(page.content))
    for nothing in ("/page/nothing.js", "/page/../settings.py", "/page/%2e%2e%2fsettings.py"):
        assert client.get(nothing).status_code == 404


def test_nothing_of_the_page_or_the_reference_runs_inline_or_from_other_hosts(
    client: httpx2.Client,
) -> None:
    for path in ("/", "/docs"):
        text = client.get(path).text
        assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\son[a-z]+=|style=", text)
        assert not re.search(r'(?:src|href)="(?:https?:)?//', text)
    for name in ("swagger-ui-bundle.js", "swagger-ui.css", "reference.js"):
        assert client.get(f"/docs/{name}").status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_probes_may_ask_for_the_head_alone(client: httpx2.Client, path: str) -> None:
    answer = client.head(path)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == client.get(path).headers["content-type"]


def test_the_openapi_document_names_what_there_is(client: httpx2.Client) -> None:
    document = client.get("/openapi.json").json()
    assert set(document["paths"]) == {
        "/v1/identify",
        "/v1/explain",
        "/v1/model",
        "/v1/cars",
        "/v1/cars/{label}",
        "/healthz",
        "/readyz",
        "/metrics",
    }
    assert "ValidationError" not in document["components"]["schemas"]
    text = json.dumps(document)
    known = document["components"]["schemas"]
    assert all(name in known for name in re.findall(r'#/components/schemas/(\w+)"', text))
    identify = document["paths"]["/v1/identify"]["post"]
    assert {"200", "400", "413", "415", "422", "503"} <= set(identify["responses"])
    assert set(identify["responses"]["413"]["content"]) == {"application/problem+json"}


def test_the_log_has_a_line_for_each_request_and_nothing_of_the_photo(
    service: Served, client: httpx2.Client
) -> None:
    client.post(
        "/v1/identify?top=3",
        files=parts(("secret.png", RED_PNG), ("b.png", GREEN_PNG), ("c.png", NO_IMAGE)),
        headers={"X-Request-Id": "the-line"},
    )
    # The client may have its answer before the line is written.
    wait_for(lambda: any(line.get("id") == "the-line" for line in service.lines()))
    (line,) = [line for line in service.lines() if line.get("id") == "the-line"]
    assert (line["method"], line["path"], line["status"]) == ("POST", "/v1/identify", 200)
    assert (line["photos"], line["levels"]) == (3, {"exact": 1, "model": 1})
    assert 0 < line["seconds"] < 60
    assert "secret" not in service.log.read_text()


def test_figures_for_prometheus(service: Served, client: httpx2.Client) -> None:
    names = ("carspotter_answers_total", "carspotter_photo_errors_total")
    before = [service.figure(name) for name in names]
    client.post("/v1/identify", files=parts(("a", RED_PNG), ("b", NO_IMAGE)))
    client.post("/v1/identify", content=NO_IMAGE)
    assert [service.figure(name) for name in names] == [before[0] + 1, before[1] + 2]
    text = client.get("/metrics").text
    assert 'carspotter_photo_errors_total{code="not_an_image"}' in text
    assert 'carspotter_requests_total{method="POST",path="/v1/identify",status="415"}' in text
    assert 'carspotter_model_info{name="tiny"' in text
    assert "carspotter_queue_requests 0.0" in text
    client.get("/nothing/that/anybody/knows")
    assert "nothing/that" not in client.get("/metrics").text


def test_the_reference_opens_in_a_browser_without_other_hosts(service: Served) -> None:
    said: list[str] = []
    asked: list[str] = []
    with chromium() as browser:
        page = browser.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{service.url}/docs")
        page.wait_for_selector("text=Name the cars on photos")
    assert said == []
    assert all(url.startswith((service.url, "data:")) for url in asked)
