"""The application of one worker."""

from __future__ import annotations

import contextlib
import socket
import warnings
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.security import HTTPBearer
from PIL import Image
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Match

from carspotter import __version__
from carspotter.serve.cars import car_routes
from carspotter.serve.engine import Engine
from carspotter.serve.files import file_routes
from carspotter.serve.health import health_routes, metrics_routes
from carspotter.serve.metrics import Metrics
from carspotter.serve.middleware import GONE, METHODS, EarlyAnswers, Guard, Observed
from carspotter.serve.photos import photo_routes
from carspotter.serve.problems import GoneError, ProblemError
from carspotter.serve.schemas import Problem, problem_responses
from carspotter.serve.service import Service
from carspotter.serve.settings import Settings
from carspotter.serve.uploads import Receiver

DESCRIPTION = """Tells make, model, body style and year of a car from a photo.

Send photos to `POST /v1/identify`. Errors are problem documents (RFC 9457) with a stable `code`.
Answers carry `X-Request-Id`, which the log has too; one that a request brings is kept.
Nothing of a photo is kept after its answer.
"""


def create_app(settings: Settings, listening: socket.socket | None = None) -> FastAPI:
    """The application; it loads its model when it starts up.

    Args:
        settings: of the service.
        listening: where connections come in; see `protocol.PatientProtocol.shutdown`.
    """
    metrics = Metrics()
    service = Service(settings, metrics, Engine(settings, metrics), Receiver(settings))

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        # carspotter has a bound of its own, and says so where it is passed.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        await service.engine.start()
        with contextlib.closing(listening.dup() if listening else socket.socket()) as kept:
            kept.setblocking(False)
            yield {"engine": service.engine, "listening": kept}
            await service.engine.stop()

    app = FastAPI(
        title="carspotter",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        middleware=_middleware(settings, metrics),
        redirect_slashes=False,
    )
    locked = settings.api_key is not None
    misnamed = {} if settings.names is None else problem_responses(421)
    key: dict[str, Any] = {
        "dependencies": [Depends(HTTPBearer(auto_error=False))] if locked else [],
        "responses": {**(problem_responses(401) if locked else {}), **misnamed},
    }
    app.include_router(photo_routes(service), **key)
    app.include_router(car_routes(service), **key)
    app.include_router(metrics_routes(service), **key)
    app.include_router(health_routes(service), responses=misnamed)
    app.include_router(file_routes())
    app.add_exception_handler(ProblemError, _on_problem)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_parameter)
    app.add_exception_handler(GoneError, _on_gone)
    app.add_exception_handler(ClientDisconnect, _on_gone)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]  # FastAPI's way to change it
    return app


def _middleware(settings: Settings, metrics: Metrics) -> list[Middleware]:
    """The outermost first."""
    cors = Middleware(
        CORSMiddleware,
        allow_origins=settings.origins,
        allow_methods=("GET", "POST", "DELETE"),
        allow_headers=("Authorization", "Content-Type", "X-Request-Id"),
        expose_headers=("Retry-After", "X-Request-Id"),
    )
    return [
        Middleware(Observed, metrics=metrics),
        Middleware(EarlyAnswers),
        *([cors] if settings.origins else []),
        Middleware(Guard, settings=settings, metrics=metrics),
    ]


async def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return error.response(request.scope)


async def _on_http(request: Request, error: Exception) -> Response:
    """What the framework refuses: unknown addresses and methods."""
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "bad_request")
    headers = {"Allow": _allowed(request)} if error.status_code == 405 else error.headers
    return ProblemError(error.status_code, code, str(error.detail), headers=headers).response(
        request.scope
    )


def _allowed(request: Request) -> str:
    """The methods of an address: the framework names those of its first route alone."""
    return ", ".join(
        method
        for method in METHODS
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    )


async def _on_parameter(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"][1:])
    detail = f"{place[:80]}: {first['msg']}"
    return ProblemError(400, "bad_parameter", detail).response(request.scope)


async def _on_gone(_: Request, error: Exception) -> Response:
    """The answer that nobody gets; the log tells it from others by its status."""
    return Response(status_code=GONE)


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's document, with problem documents in the place of its own errors."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        )
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas["Problem"] = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schemas["Problem"].pop("$defs", {}))
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        for path in document["paths"].values():
            for operation in path.values():
                own = operation["responses"].get("422", {}).get("content", {})
                if "application/json" in own:
                    del operation["responses"]["422"]
        app.openapi_schema = document
    return app.openapi_schema
