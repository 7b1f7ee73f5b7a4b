"""The page and the API's reference: files of the package, held in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

from fastapi import APIRouter, Request
from starlette.responses import Response

from carspotter.serve.problems import ProblemError

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff2": "font/woff2",
}
_SWAGGER = ("swagger-ui-bundle.js", "swagger-ui.css")


@dataclass(frozen=True)
class _File:
    content: bytes
    media_type: str
    tag: str

    def answer(self, request: Request) -> Response:
        """The file; its tag alone where the client has it already."""
        headers = {"ETag": self.tag, "Cache-Control": "no-cache"}
        known = request.headers.get("if-none-match", "")
        if known == "*" or self.tag in (tag.strip().removeprefix("W/") for tag in known.split(",")):
            return Response(status_code=304, headers=headers)
        return Response(self.content, headers={**headers, "Content-Type": self.media_type})


def file_routes() -> APIRouter:
    """The page at /, its files below /page, and the API's reference at /docs."""
    router = APIRouter(include_in_schema=False)
    own = resources.files("carspotter.serve")
    page = _files(own.joinpath("page"))
    reference = _files(own.joinpath("reference"))
    swagger = resources.files("fastapi_offline").joinpath("static")
    reference |= {name: _file(swagger.joinpath(name)) for name in _SWAGGER}

    @router.api_route("/", methods=["GET", "HEAD"])
    async def index(request: Request) -> Response:
        return _found(page, "index.html").answer(request)

    @router.api_route("/page/{name}", methods=["GET", "HEAD"])
    async def page_file(request: Request, name: str) -> Response:
        return _found(page, name).answer(request)

    @router.api_route("/docs", methods=["GET", "HEAD"])
    async def docs(request: Request) -> Response:
        return _found(reference, "index.html").answer(request)

    @router.api_route("/docs/{name}", methods=["GET", "HEAD"])
    async def docs_file(request: Request, name: str) -> Response:
        return _found(reference, name).answer(request)

    return router


def _found(files: Mapping[str, _File], name: str) -> _File:
    if name not in files:
        raise ProblemError(404, "not_found", "there is nothing at this address")
    return files[name]


def _files(folder: Traversable) -> dict[str, _File]:
    """The files of a folder whose type is known, by name."""
    return {
        item.name: _file(item)
        for item in folder.iterdir()
        if item.is_file() and _ending(item.name) in _TYPES
    }


def _file(item: Traversable) -> _File:
    content = item.read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    return _File(content, _TYPES[_ending(item.name)], tag)


def _ending(name: str) -> str:
    return name[name.rfind(".") :] if "." in name else ""
