"""Taking in request bodies: in memory, within bounds, and no longer than they are needed."""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from carspotter.serve.problems import BusyError, GoneError, ProblemError
from carspotter.serve.settings import Settings

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FRAME_BYTES = 64 << 10
"""What a multipart body may have beside its photos."""

FIELD_BYTES = 4 << 10
"""Of a field's text."""

SLOWEST = 8 << 10
"""Bytes a second: a body that comes more slowly is given up after its first seconds."""

HELD = 8
"""A worker holds the bodies of so many requests of the largest size at once."""

_NAME_LENGTH = 255

_EXTENDED_NAME = re.compile(
    rb";\s*filename\*\s*=\s*(utf-8|iso-8859-1)'[^';]*'([^\s;]*)", re.IGNORECASE
)
"""Charset, language, and the name with percent signs."""


class Photo(io.BytesIO):
    """The bytes of a photo's file, and how results call it."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.name = name


@dataclass
class Upload:
    """What a request brought.

    Attributes:
        photos: at least one.
        fields: text, by the part's name.
    """

    photos: list[Photo] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)


class Receiver:
    """Takes in the bodies of a worker's requests.

    Args:
        settings: the bounds.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._held = 0

    @property
    def held(self) -> int:
        """Bytes of bodies that are held now."""
        return self._held

    @contextlib.asynccontextmanager
    async def receive(
        self, request: Request, fields: Collection[str] = ()
    ) -> AsyncIterator[Upload]:
        """The photos of a request; they count as held until the block ends.

        Args:
            request: its body is multipart, or one photo.
            fields: names of text fields that it may have.

        Raises:
            ProblemError: no photo, too large, too slow, no room for it, or not to be read.
            GoneError: the client went away.
        """
        held = 0

        def hold(size: int) -> None:
            nonlocal held
            if self._held + size > HELD * self._settings.max_bytes:
                raise BusyError("busy", "too many uploads at once; try again later")
            self._held += size
            held += size

        try:
            upload = Upload()
            body = self._body(request, hold)
            async with contextlib.aclosing(body):
                await _read(request, body, upload, frozenset(fields), self._settings)
            yield upload
        finally:
            self._held -= held

    async def _body(
        self, request: Request, hold: Callable[[int], None]
    ) -> AsyncGenerator[bytes, None]:
        """The chunks of a body, as they come, counted."""
        most = self._settings.max_bytes
        if is_multipart(request):
            most += FRAME_BYTES
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > most:
            raise self._too_large()
        start, total, more = time.monotonic(), 0, True
        while more:
            patience = self._settings.upload_seconds
            left = start + patience + total / SLOWEST - time.monotonic()
            try:
                async with asyncio.timeout(min(patience, left)):
                    message = await request.receive()
            except TimeoutError:
                raise ProblemError(408, "too_slow", "the upload came too slowly") from None
            if message["type"] == "http.disconnect":
                raise GoneError
            chunk: bytes = message.get("body", b"")
            more = message.get("more_body", False)
            total += len(chunk)
            if total > most:
                raise self._too_large()
            hold(len(chunk))
            yield chunk

    def _too_large(self) -> ProblemError:
        most = f"{self._settings.max_bytes / (1 << 20):.3g} MiB"
        return ProblemError(413, "too_large", f"more than {most} in one request; send less at once")


async def _read(
    request: Request,
    body: AsyncIterator[bytes],
    upload: Upload,
    fields: frozenset[str],
    settings: Settings,
) -> None:
    """Sort the chunks of a body into an upload."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise _unsupported("a compressed body")
    if is_multipart(request):
        parts = _Parts(request.headers["content-type"], upload, fields, settings.max_photos)
        async for chunk in body:
            parts.write(chunk)
        parts.close()
    elif _is_raw(request):
        whole = b"".join([chunk async for chunk in body])
        if whole:
            upload.photos.append(Photo(whole, "photo"))
    else:
        raise _unsupported(request.headers["content-type"][:80])
    if not upload.photos:
        raise ProblemError(
            400, "no_photo", "no photo: send parts named 'photo', or one image as the body"
        )


def is_multipart(request: Request) -> bool:
    """Whether a request's body has parts."""
    return _media_type(request) == "multipart/form-data"


def _is_raw(request: Request) -> bool:
    """Whether a request's body is one photo; of which format, its content says."""
    media_type = _media_type(request)
    return media_type in ("", "application/octet-stream") or media_type.startswith("image/")


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _unsupported(what: str) -> ProblemError:
    return ProblemError(
        415,
        "unsupported_type",
        f"{what} is not taken: send multipart/form-data, image/* or application/octet-stream",
    )


class _Parts:
    """A multipart body: parts named `photo`, and known fields of text."""

    def __init__(
        self, content_type: str, upload: Upload, fields: frozenset[str], max_photos: int
    ) -> None:
        self._upload, self._fields, self._max_photos = upload, fields, max_photos
        self._header, self._value = b"", b""
        self._disposition = b""
        self._name, self._file = "", ""
        self._content = bytearray()
        self._ended = False
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._begin,
            "on_header_field": self._on_header,
            "on_header_value": self._on_value,
            "on_header_end": self._header_ended,
            "on_headers_finished": self._named,
            "on_part_data": self._on_data,
            "on_part_end": self._part_ended,
            "on_end": self._end,
        }
        _, options = parse_options_header(content_type)
        try:
            self._parser = MultipartParser(options[b"boundary"], callbacks)
        except (KeyError, FormParserError):
            raise _bad_multipart("it names no boundary that can be used") from None

    def write(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except FormParserError:
            raise _bad_multipart("it cannot be read") from None

    def close(self) -> None:
        if not self._ended:
            raise _bad_multipart("it is cut short")

    def _begin(self) -> None:
        self._disposition = b""
        self._content = bytearray()

    def _on_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_ended(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header, self._value = b"", b""

    def _named(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if self._name == "photo":
            if len(self._upload.photos) == self._max_photos:
                raise ProblemError(
                    413, "too_many_photos", f"more than {self._max_photos} photos; send them apart"
                )
            given = _sent_name(self._disposition, options.get(b"filename", b""))
            self._file = _file_name(given, len(self._upload.photos) + 1)
        elif self._name not in self._fields or self._name in self._upload.fields:
            known = ", ".join(["photo", *sorted(self._fields)])
            raise ProblemError(
                400, "unknown_part", f"a part named {self._name[:40]!r}; there may be: {known}"
            )

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self._content += memoryview(data)[start:end]
        if self._name != "photo" and len(self._content) > FIELD_BYTES:
            raise ProblemError(413, "too_large", f"{self._name}: more than {FIELD_BYTES} bytes")

    def _part_ended(self) -> None:
        content, self._content = bytes(self._content), bytearray()
        if self._name == "photo":
            self._upload.photos.append(Photo(content, self._file))
            return
        try:
            self._upload.fields[self._name] = content.decode()
        except UnicodeDecodeError:
            raise _bad_multipart(f"{self._name} is not UTF-8") from None

    def _end(self) -> None:
        self._ended = True


def _sent_name(disposition: bytes, quoted: bytes) -> str:
    """The name of a part's file: as RFC 5987 writes it (`filename*`), or from between quotes.

    There browsers and curl write a quote as %22 and line breaks as %0D and %0A, and no other sign.
    """
    if extended := _EXTENDED_NAME.search(disposition):
        charset, value = extended.groups()
        return unquote_to_bytes(value).decode(charset.decode(), "replace")
    name = quoted.decode("utf-8", "replace")
    return name.replace("%22", '"').replace("%0D", "\r").replace("%0A", "\n")


def _file_name(given: str, number: int) -> str:
    """How results call a photo: its file's name without folders, or its number."""
    name = given.replace("\\", "/").rpartition("/")[2]
    name = "".join(letter if letter.isprintable() else "\ufffd" for letter in name)
    return name[:_NAME_LENGTH] or f"photo-{number}"


def _bad_multipart(reason: str) -> ProblemError:
    return ProblemError(400, "bad_multipart", f"the multipart body: {reason}")
