"""Routes about taught cars: list, teach, forget."""

from __future__ import annotations

import logging
from pathlib import Path as FilePath
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from starlette.responses import JSONResponse, Response

from carspotter.errors import GarageError, UsageError
from carspotter.garage import editing, write_garage
from carspotter.names import FIRST_YEAR, LAST_YEAR, name_of
from carspotter.results import name_parts
from carspotter.serve.engine import Ticket
from carspotter.serve.middleware import note
from carspotter.serve.photos import wanted
from carspotter.serve.problems import BusyError, ProblemError, of_photos
from carspotter.serve.schemas import Cars, Lesson, body_schema, problem_responses
from carspotter.serve.service import Service
from carspotter.serve.uploads import Upload
from carspotter.spotter import Spotter
from carspotter.teaching import open_or_new, teach

_log = logging.getLogger(__name__)

_TEXT = {"type": "string", "minLength": 1, "maxLength": 200}
_FIELDS: dict[str, Any] = {
    "name": {**_TEXT, "examples": ["Rivian R1T Crew Cab 2022"]},
    "make": {**_TEXT, "description": "With which the name begins.", "examples": ["Rivian"]},
    "body": {**_TEXT, "description": "At its end, or before the year.", "examples": ["Crew Cab"]},
    "year": {
        "type": "integer",
        "minimum": FIRST_YEAR,
        "maximum": LAST_YEAR,
        "description": "At its end.",
    },
    "add": {"type": "boolean", "description": "These are more photos of a taught car."},
}
_TRUTH = {"true": True, "1": True, "on": True, "": False, "false": False, "0": False}


def car_routes(service: Service) -> APIRouter:
    """The routes of a worker."""
    router = APIRouter(prefix="/v1/cars", tags=["taught cars"])
    file = service.settings.garage if service.settings.allow_teaching else None

    @router.get(
        "", response_model=Cars, responses=problem_responses(403, 429, 503), summary="List them"
    )
    def cars() -> Response:
        """The cars that were taught, in the order of teaching."""
        spotter, _ = service.engine.now()
        found = _garage(spotter, _need(file))
        return JSONResponse(
            {"cars": [{**name_parts(car.name), "photos": len(car.photos)} for car in found.cars]}
        )

    @router.post(
        "",
        status_code=201,
        response_model=Lesson,
        responses=problem_responses(400, 403, 404, 408, 409, 413, 415, 422, 429, 503),
        openapi_extra=body_schema(many=True, fields=_FIELDS),
        summary="Teach one",
    )
    async def learn(request: Request) -> Response:
        """Teach a car from photos, or with `add` give a taught one more of them.

        Photos that cannot be used are left out, and said; where none can, the answer is a problem.
        """
        path = _need(file)
        service.engine.check()
        async with service.receiver.receive(request, _FIELDS) as upload:
            note(request.scope).photos = len(upload.photos)
            lesson = await service.engine.run(request, lambda ticket: _taught(ticket, path, upload))
        return JSONResponse(lesson, 201)

    @router.delete(
        "/{label:path}",
        status_code=204,
        response_class=Response,
        responses=problem_responses(403, 404, 429, 503),
        summary="Forget one",
    )
    def forget(label: Annotated[str, Path(description="Its name.")]) -> Response:
        """Take a car out of the garage."""
        spotter, _ = service.engine.now()
        _forget(spotter, _need(file), label)
        return Response(status_code=204)

    return router


def _need(file: FilePath | None) -> FilePath:
    if file is None:
        raise ProblemError(403, "teaching_off", "the operator does not allow teaching here")
    return file


def _garage(spotter: Spotter, path: FilePath) -> Any:
    try:
        return open_or_new(spotter, path)
    except GarageError as error:
        raise _unusable(error) from error


def _taught(ticket: Ticket, path: FilePath, upload: Upload) -> dict[str, Any]:
    """The lesson, in plain values."""
    fields = {key: text for key, text in upload.fields.items() if text.strip()}
    year, add = fields.get("year"), fields.get("add", "").lower()
    if year is not None and not (year.isdecimal() and FIRST_YEAR <= int(year[:6]) <= LAST_YEAR):
        raise ProblemError(400, "bad_parameter", f"year: {year[:20]!r} is none")
    if add not in _TRUTH:
        raise ProblemError(400, "bad_parameter", f"add: {add[:20]!r} is neither true nor false")
    try:
        name = name_of(
            fields.get("name", ""),
            make=fields.get("make"),
            body=fields.get("body"),
            year=None if year is None else int(year),
        )
    except UsageError as error:
        raise ProblemError(400, "bad_name", str(error).replace("--make", "make")) from error
    more = _TRUTH[add]
    there = _garage(ticket.spotter, path).find(name.label)
    if there is not None and not more:
        raise ProblemError(409, "car_exists", f"{there.name.label} is taught already; add more?")
    if there is None and more:
        raise ProblemError(404, "no_such_car", f"{name.label} is not taught yet")
    try:
        lesson = teach(ticket.spotter, path, name, wanted(ticket, upload.photos), add=more)
    except UsageError as error:
        raise ProblemError(409, "car_exists", _in_words(str(error))) from error
    except GarageError as error:
        raise _unusable(error) from error
    except OSError as error:
        raise _unwritable(error) from error
    if not lesson.added and not lesson.skipped:
        raise of_photos(lesson.failed)
    return lesson.to_dict()


def _forget(spotter: Spotter, path: FilePath, label: str) -> None:
    if _garage(spotter, path).find(label) is None:
        raise ProblemError(404, "no_such_car", f"{label[:80]} is not taught")
    try:
        with editing(path) as own:
            write_garage(own, _garage(spotter, own).forget(label))
    except UsageError as error:  # someone else was quicker
        raise ProblemError(404, "no_such_car", f"{label[:80]} is not taught") from error
    except OSError as error:
        raise _unwritable(error) from error


def _unwritable(error: OSError) -> BusyError:
    _log.error("the garage cannot be written: %s", error)
    return BusyError("storage", "the garage cannot be written now; the log says why")


def _unusable(error: GarageError) -> BusyError:
    _log.error("the garage cannot be used: %s", error)
    return BusyError("garage_unusable", "the garage cannot be used now; the log says why")


def _in_words(message: str) -> str:
    """A message without what only the command line has."""
    return message.partition("; change them by")[0].partition("; --add")[0]
