"""What the service refuses, and that what it refuses costs the others nothing."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
import uvicorn
from serve_process import Served, parts, photo, served, slow_photo, wait_for
from tiny_model import GREEN, RED

from carspotter.errors import UsageError
from carspotter.serve import protocol
from carspotter.serve.app import create_app
from carspotter.serve.settings import Settings

RED_PNG = photo(RED)
KEY = "correct horse battery"
LIMIT = 20_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def small(folder: Path, model: Path) -> Iterator[Served]:
    """A service with little patience and small bounds."""
    options = ("--max-bytes", LIMIT, "--max-pixels", 10_000, "--upload-seconds", 0.5)
    with served(folder, "--model", model, *map(str, options)) as found:
        yield found


@pytest.fixture(scope="module")
def locked(folder: Path, model: Path) -> Iterator[Served]:
    """A service with a key, a rate, and another host's page that may use it."""
    options = ("--rate", "5/hour", "--origin", "https://cars.example.org")
    with served(folder, "--model", model, *options, CARSPOTTER_API_KEY=KEY) as found:
        yield found


@pytest.fixture(scope="module")
def narrow(folder: Path, model: Path) -> Iterator[Served]:
    """A service that does one thing at a time, and lets nobody wait."""
    options = ("--threads", "1", "--queue", "0", "--deadline", "120")
    with served(folder, "--model", model, *options) as found:
        yield found


def spoken(place: tuple[str, int], *pieces: bytes, pause: float = 0.0) -> bytes:
    """What the service answers to these bytes, until it closes the connection."""
    with socket.create_connection(place, timeout=30) as connection:
        for piece in pieces:
            try:
                connection.sendall(piece)
            except OSError:
                break
            time.sleep(pause)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := connection.recv(65536):
                answer += chunk
        return answer


def code(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_a_body_is_refused_by_its_stated_length(small: Served) -> None:
    answer = small.client.post("/v1/identify", content=b"x" * (LIMIT + 1))
    assert code(answer) == (413, "too_large")
    just = RED_PNG + b"\0" * (LIMIT - len(RED_PNG))  # what stands behind a PNG is not looked at
    assert small.client.post("/v1/identify", content=just).status_code == 200


def test_a_body_without_a_stated_length_is_counted_as_it_comes(small: Served) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 100_000_000:
            sent += 10_000
            yield b"x" * 10_000

    with contextlib.suppress(httpx2.WriteError):
        assert code(small.client.post("/v1/identify", content=endless())) == (413, "too_large")
    assert sent < 100_000_000
    assert small.client.get("/readyz").status_code == 200


def test_photos_together_are_bounded_in_a_multipart_body(small: Served) -> None:
    half = RED_PNG + b"\0" * (LIMIT // 2)
    answer = small.client.post("/v1/identify", files=parts(*[("a.png", half)] * 9))
    assert code(answer) == (413, "too_large")


def test_pixels_are_bounded_before_they_are_decoded(small: Served) -> None:
    answer = small.client.post("/v1/identify", content=photo(RED, (101, 100)))
    assert code(answer) == (413, "too_large")
    assert small.client.post("/v1/identify", content=photo(RED, (100, 100))).status_code == 200


def test_fields_and_headers_of_parts_are_bounded(small: Served) -> None:
    head = {"Content-Type": "multipart/form-data; boundary=x"}
    named = b'--x\r\nContent-Disposition: form-data; name="photo"\r\n'
    many = named + b"A: b\r\n" * 1000 + b"\r\n" + RED_PNG + b"\r\n--x--\r\n"
    long = named + b"A: " + b"b" * 15_000 + b"\r\n\r\n" + RED_PNG + b"\r\n--x--\r\n"
    for body in (many, long):
        answer = small.client.post("/v1/identify", content=body, headers=head)
        assert code(answer) == (400, "bad_multipart")


def test_an_upload_of_one_byte_at_a_time_is_given_up(small: Served) -> None:
    head = b"POST /v1/identify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000\r\n\r\n"
    began = time.monotonic()
    answer = spoken(small.place, head, *[b"x"] * 60, pause=0.1)
    assert b" 408 " in answer.partition(b"\r\n")[0]
    assert json.loads(answer.rpartition(b"\r\n\r\n")[2])["code"] == "too_slow"
    assert time.monotonic() - began < 20


def test_a_connection_that_breaks_off_leaves_nothing(small: Served) -> None:
    head = b"POST /v1/identify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000\r\n\r\n"
    for _ in range(20):
        with socket.create_connection(small.place) as connection:
            connection.sendall(head + b"half")
    answer = small.client.post("/v1/identify", content=RED_PNG)
    assert answer.status_code == 200
    wait_for(lambda: sum(line.get("status") == 499 for line in small.lines()) == 20)


def test_a_head_without_an_end_is_refused(small: Served) -> None:
    answer = spoken(small.place, b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 20_000)
    assert answer.startswith(b"HTTP/1.1 4")


def test_early_answers_reach_clients_that_are_still_sending(small: Served) -> None:
    size = 5_000_000
    head = (
        f"POST /v1/identify HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode()
    )
    answer = spoken(small.place, head, *[b"x" * (size // 10)] * 10)
    assert b" 413 " in answer.partition(b"\r\n")[0]
    assert b"connection: close" in answer.lower()


def test_who_asks_before_sending_need_not_send(small: Served) -> None:
    head = b"POST /v1/identify HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
    refused = spoken(small.place, head + b"Content-Length: 999999\r\n\r\n")
    assert refused.startswith(b"HTTP/1.1 413 ")


def test_without_the_key_only_the_page_and_its_health_are_seen(locked: Served) -> None:
    for path in ("/", "/healthz", "/readyz", "/page/main.js", "/docs", "/openapi.json"):
        assert locked.client.get(path).status_code == 200
    wrong = ("", "Bearer", f"Bearer {KEY}x", f"Basic {KEY}", "Bearer \xff")
    for value in wrong:
        for method, path in (("GET", "/v1/model"), ("POST", "/v1/identify"), ("GET", "/metrics")):
            headers = {"Authorization": value.encode("latin-1")}
            answer = locked.client.request(method, path, headers=headers)
            assert code(answer) == (401, "no_key")
            assert answer.headers["www-authenticate"] == "Bearer"
    document = locked.client.get("/openapi.json").json()
    assert document["paths"]["/v1/identify"]["post"]["security"]
    assert "security" not in document["paths"]["/healthz"]["get"]


def test_the_key_opens_and_the_rate_closes(locked: Served) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    answers = [
        locked.client.post("/v1/identify", content=RED_PNG, headers=headers) for _ in range(6)
    ]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    assert code(answers[-1]) == (429, "rate")
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 3600
    assert locked.client.get("/metrics", headers=headers).status_code == 200


def test_only_pages_that_are_named_may_ask_from_a_browser(locked: Served, small: Served) -> None:
    asked = {
        "Origin": "https://cars.example.org",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    allowed = locked.client.options("/v1/identify", headers=asked)
    assert allowed.headers["access-control-allow-origin"] == "https://cars.example.org"
    assert "access-control-allow-credentials" not in allowed.headers
    other = locked.client.options("/v1/identify", headers={**asked, "Origin": "https://evil.test"})
    assert "access-control-allow-origin" not in other.headers
    nobody = small.client.options("/v1/identify", headers=asked)
    assert "access-control-allow-origin" not in nobody.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.test"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.test"},
        {"Origin": "null"},
        {"Origin": "http://["},
    ],
)
def test_forms_of_other_pages_are_refused(small: Served, headers: dict[str, str]) -> None:
    answer = small.client.post("/v1/identify", content=RED_PNG, headers=headers)
    assert code(answer) == (403, "cross_origin")


def test_the_services_own_page_is_not_refused(small: Served) -> None:
    for headers in ({"Sec-Fetch-Site": "same-origin"}, {"Origin": small.url}, {}):
        answer = small.client.post("/v1/identify", content=RED_PNG, headers=headers)
        assert answer.status_code == 200


def test_who_finds_the_queue_full_is_told_when_to_come_again(narrow: Served) -> None:
    heavy = parts(*[("slow.png", slow_photo())] * 6)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(narrow.client.post, "/v1/identify", files=heavy)
        wait_for(lambda: narrow.figure("carspotter_queue_requests") == 1)
        answer = narrow.client.post("/v1/identify", content=RED_PNG)
        assert code(answer) == (503, "busy")
        assert int(answer.headers["retry-after"]) >= 1
        assert narrow.client.get("/healthz").status_code == 200  # the loop is free meanwhile
        results = first.result().json()["results"]
    assert [found["answer"]["label"] for found in results] == ["Audi S4 Sedan 2012"] * 6
    assert narrow.client.post("/v1/identify", content=RED_PNG).status_code == 200
    assert narrow.figure("carspotter_refused_total") == 1


def test_a_client_that_goes_away_costs_no_further_work(narrow: Served) -> None:
    answered = narrow.figure("carspotter_answers_total")
    heavy = parts(*[("slow.png", slow_photo())] * 30)
    with (
        pytest.raises(httpx2.ReadTimeout),
        httpx2.Client(base_url=narrow.url, timeout=httpx2.Timeout(60, read=1.0)) as impatient,
    ):
        impatient.post("/v1/identify", files=heavy)
    began = time.monotonic()
    wait_for(lambda: narrow.figure("carspotter_queue_requests") == 0, 60)
    once = time.monotonic() - began
    began = time.monotonic()
    narrow.client.post("/v1/identify", files=heavy[:8])
    assert once < time.monotonic() - began  # the rest would have taken three times as long
    assert narrow.figure("carspotter_answers_total") == answered + 8


def test_what_is_not_done_by_the_deadline_is_given_up(folder: Path, model: Path) -> None:
    with served(folder, "--model", model, "--threads", "1", "--deadline", "0.3") as found:
        heavy = parts(*[("slow.png", slow_photo())] * 12)
        answer = found.client.post("/v1/identify", files=heavy)
        assert code(answer) == (503, "deadline")
        assert "retry-after" in answer.headers
        wait_for(lambda: found.figure("carspotter_queue_requests") == 0)
        assert found.client.post("/v1/identify", content=photo(GREEN)).status_code == 200


@contextlib.contextmanager
def here(model: Path) -> Iterator[tuple[tuple[str, int], uvicorn.Server]]:
    """The service in this process, so that its patience can be shortened."""
    app = create_app(Settings(model=str(model), threads=1))
    config = uvicorn.Config(app, http=protocol.PatientProtocol, log_config=None, lifespan="on")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            wait_for(lambda: server.started)
            yield listening.getsockname(), server
        finally:
            server.should_exit = True
            thread.join(30)


def test_a_connection_that_asks_nothing_is_closed(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.5)
    with here(model) as (place, _):
        for pieces in ([], [b"GET /healthz HT"], [b"G"] + [b"E"] * 20):
            began = time.monotonic()
            assert spoken(place, *pieces, pause=0.1).partition(b"\r\n")[0] in (
                b"",
                b"HTTP/1.1 400 Bad Request",
            )
            assert time.monotonic() - began < 10
        # A further request of the same connection may not dawdle either.
        whole = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        began = time.monotonic()
        answer = spoken(place, whole, b"GET /he", *[b"a"] * 20, pause=0.1)
        assert answer.count(b"HTTP/1.1 200") == 1
        assert time.monotonic() - began < 10


def test_an_answer_that_nobody_reads_is_given_up(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "WRITE_SECONDS", 0.5)
    ask = b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with here(model) as (place, _), socket.create_connection(place) as deaf:
        deaf.sendall(ask * 50)
        time.sleep(3)
        with pytest.raises(OSError, match=r"reset|Broken"):  # noqa: PT012
            for _ in range(10):
                deaf.sendall(b"x" * 100_000)
                time.sleep(0.1)


def test_a_connection_from_before_may_still_ask_while_the_service_ends(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "GRACE_SECONDS", 20)
    with here(model) as (place, server):
        connection = http.client.HTTPConnection(*place, timeout=60)

        def ask() -> tuple[int, str | None, bytes]:
            connection.request("GET", "/readyz")
            answer = connection.getresponse()
            return answer.status, answer.headers["Connection"], answer.read()

        assert ask()[:2] == (200, None)
        server.should_exit = True
        wait_for(lambda: not server.servers[0].is_serving())
        status, _, body = ask()
        assert (status, json.loads(body)["code"]) == (503, "stopping")
        assert connection.sock is None or connection.sock.recv(1) == b""  # it was the last one
        connection.close()


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:9", 200),
        ("LOCALHOST", 200),
        ("[::1]:8000", 200),
        ("127.0.0.1", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example:8000", 421),
        ("localhost@evil.example", 421),
        ("[::1", 421),
        ("", 421),
    ],
)
def test_a_name_that_is_not_the_service_s(small: Served, host: str, status: int) -> None:
    for path in ("/", "/v1/model"):
        answer = small.client.get(path, headers={"Host": host})
        assert answer.status_code == status
        assert status == 200 or code(answer) == (421, "wrong_host")


def test_names_that_clients_may_use() -> None:
    assert Settings(host="0.0.0.0").names is None
    named = Settings(host="0.0.0.0", hosts=("Cars.example.org",)).names
    assert named == {"cars.example.org", "localhost", "127.0.0.1", "::1", "0.0.0.0"}
    assert Settings(hosts=("cars.example.org",)).names >= {"cars.example.org", "localhost"}
    assert "127.0.0.2" in (Settings(host="127.0.0.2").names or ())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"port": 70000}, "--port 70000"),
        ({"workers": 0}, "--workers 0"),
        ({"deadline": 0}, "--deadline 0"),
        ({"max_pixels": 10**9}, "--max-pixels"),
        ({"rate": "often"}, "--rate often"),
        ({"api_key": "short"}, "16 characters"),
        ({"origins": ("cars.example.org",)}, "--origin cars.example.org"),
        ({"origins": ("https://cars.example.org/",)}, "--origin"),
        ({"hosts": ("https://cars.example.org",)}, "--allow-host https://cars.example.org"),
        ({"allow_teaching": True}, "--garage"),
        ({"log_level": "loud"}, "--log-level loud"),
    ],
)
def test_settings_that_cannot_be(change: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Settings(**change)
