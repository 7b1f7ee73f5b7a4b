"""Routes about photos: identify and explain them, and say which model does."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from carspotter.errors import ModelFileError, PhotoError, UsageError
from carspotter.preprocess import Box
from carspotter.results import Failure, Identification, name_parts
from carspotter.serve.engine import Ticket
from carspotter.serve.middleware import note
from carspotter.serve.problems import GoneError, ProblemError, of_photos
from carspotter.serve.schemas import (
    ExplainQuery,
    IdentifyQuery,
    Model,
    Results,
    body_schema,
    problem_responses,
)
from carspotter.serve.service import Service
from carspotter.serve.uploads import Photo
from carspotter.spotter import Spotter

OVERLAY_SIDE = 1024
"""Longest side of an explained photo, in pixels."""


def photo_routes(service: Service) -> APIRouter:
    """The routes of a worker."""
    router = APIRouter(prefix="/v1", tags=["photos"])
    upload_problems = problem_responses(400, 403, 408, 413, 415, 422, 429, 503)

    @router.post(
        "/identify",
        response_model=Results,
        responses=upload_problems,
        openapi_extra=body_schema(many=True),
        summary="Name the cars on photos",
    )
    async def identify(request: Request, query: Annotated[IdentifyQuery, Query()]) -> Response:
        """Send one or more parts named `photo`, or one image as the body.

        A photo that cannot be used among others gets a result with `error`; where all cannot, the
        answer is a problem.
        """
        box = parse_box(query.box)
        service.engine.check()
        async with service.receiver.receive(request) as upload:
            note(request.scope).photos = len(upload.photos)
            results = await service.engine.run(
                request, lambda ticket: _identified(ticket, upload.photos, query, box)
            )
        service.metrics.results(results)
        failures = [(found.photo, found.error) for found in results if found.error is not None]
        if len(failures) == len(results):
            raise of_photos(failures)
        note(request.scope).levels.update(found.answer.level for found in results if found.answer)
        return JSONResponse({"results": [found.to_dict() for found in results]})

    @router.post(
        "/explain",
        response_class=Response,
        responses={
            **upload_problems,
            **problem_responses(501),
            200: {
                "description": "The photo with its heat map and boxes.",
                "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
            },
        },
        openapi_extra=body_schema(many=False),
        summary="Show what an answer rests on",
    )
    async def explain(request: Request, query: Annotated[ExplainQuery, Query()]) -> Response:
        """Send one photo; the answer is a PNG, its longest side at most 1024 pixels."""
        box = parse_box(query.box)
        service.engine.check()
        async with service.receiver.receive(request) as upload:
            note(request.scope).photos = len(upload.photos)
            if len(upload.photos) > 1:
                raise ProblemError(400, "too_many_photos", "one photo at a time is explained")
            picture = await service.engine.run(
                request, lambda ticket: _explained(ticket, upload.photos[0], query, box)
            )
        return Response(picture, media_type="image/png")

    @router.get(
        "/model",
        response_model=Model,
        responses=problem_responses(429, 503),
        summary="The model, and what is allowed here",
    )
    def model() -> Response:
        """Classes, accuracy, and the limits of a request."""
        return JSONResponse(_facts(service))

    return router


def _identified(
    ticket: Ticket, photos: list[Photo], query: IdentifyQuery, box: Box | None
) -> list[Identification]:
    """Results in order.

    One photo after the other: others get their turn meanwhile, and the work ends with the photo
    during which the client goes away.
    """
    spotter = ticket.spotter
    coverages = coverages_of(spotter)
    if query.coverage is not None and query.coverage not in coverages:
        there = ", ".join(map(str, coverages)) or "none"
        raise ProblemError(400, "bad_parameter", f"coverage: this model has {there}")

    def result(photo: Photo) -> Identification:
        try:
            return spotter.identify(
                photo, top_k=query.top, box=box, crop=query.crop, coverage=query.coverage
            )
        except PhotoError as error:
            failure = Failure(error.code, str(error))
            return Identification(photo.name, None, (), None, spotter.info, error=failure)

    return [result(photo) for photo in wanted(ticket, photos)]


def wanted(ticket: Ticket, photos: list[Photo]) -> Iterator[Photo]:
    """The photos, as long as somebody waits for what they come to.

    Raises:
        GoneError: nobody does.
    """
    for photo in photos:
        if not ticket.wanted:
            raise GoneError
        yield photo


def _explained(ticket: Ticket, photo: Photo, query: ExplainQuery, box: Box | None) -> bytes:
    try:
        explained = ticket.spotter.explain(photo, label=query.label, box=box, crop=query.crop)
    except PhotoError as error:
        raise of_photos([(photo.name, Failure(error.code, str(error)))]) from error
    except UsageError as error:
        raise ProblemError(400, "bad_parameter", f"label: {error}") from error
    except ModelFileError as error:
        detail = f"the model {ticket.spotter.info.name} has no heat maps; see docs/explain.md"
        raise ProblemError(501, "cannot_explain", detail) from error
    if not ticket.wanted:
        raise GoneError
    picture = explained.overlay()
    picture.thumbnail((OVERLAY_SIDE, OVERLAY_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=3)  # 6, the default, takes twice as long for little
    return buffer.getvalue()


def _facts(service: Service) -> dict[str, object]:
    settings, (spotter, cars) = service.settings, service.engine.now()
    card = spotter.card
    return {
        **spotter.info.to_dict(),
        "input_size": card.input_size,
        "classes": [name_parts(name) for name in card.classes],
        "newest_year": max((name.year for name in card.classes if name.year), default=None),
        "accuracy": dict(card.accuracy),
        "coverages": coverages_of(spotter),
        "detector": spotter.finds_cars,
        "explains": spotter.explains,
        "teaching": settings.allow_teaching,
        "limits": {
            "max_bytes": settings.max_bytes,
            "max_pixels": settings.max_pixels,
            "max_photos": settings.max_photos,
        },
        "garage": None if cars is None else {"cars": cars},
    }


def parse_box(text: str | None) -> Box | None:
    """The box of a parameter whose form was checked.

    Raises:
        ProblemError: it is turned around.
    """
    if text is None:
        return None
    left, top, right, bottom = (int(part) for part in text.split(","))
    if left >= right or top >= bottom:
        raise ProblemError(
            400, "bad_parameter", "box: x1 must be left of x2, and y1 above y2: x1,y1,x2,y2"
        )
    return left, top, right, bottom


def coverages_of(spotter: Spotter) -> list[float]:
    """The coverages for which the model has sets."""
    return sorted(map(float, spotter.card.sets))
