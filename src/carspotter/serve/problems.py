"""What went wrong with a request, as RFC 9457 problem documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import Scope

from carspotter.results import Failure

MEDIA_TYPE = "application/problem+json"

PHOTO_STATUS: Mapping[str, int] = {
    "empty": 400,
    "too_large": 413,
    "not_an_image": 415,
    "broken": 422,
    "too_small": 422,
    "box_outside": 422,
    "unreadable": 422,
}
"""The status of a request all of whose photos failed, by the code of its first photo."""


class ProblemError(Exception):
    """A request cannot be answered.

    Args:
        status: of the answer.
        code: stable, for programs.
        detail: for people; says what to do.
        headers: of the answer, beside those that all have.
        more: further members of the document.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail
        self.headers, self.more = headers, more

    def response(self, scope: Scope) -> JSONResponse:
        """The answer to the request of this scope."""
        phrase = HTTPStatus(self.status).phrase
        document = {
            "type": "about:blank",
            "title": phrase,
            "status": self.status,
            "detail": self.detail,
            "instance": request_id(scope),
            "code": self.code,
            **self.more,
        }
        return JSONResponse(document, self.status, self.headers, media_type=MEDIA_TYPE)


class BusyError(ProblemError):
    """The service is well, but has no room for this request now.

    Args:
        code: why.
        detail: for people.
        seconds: after which another try makes sense.
    """

    def __init__(self, code: str, detail: str, *, seconds: int = 1, status: int = 503) -> None:
        super().__init__(status, code, detail, headers={"Retry-After": str(seconds)})


class GoneError(Exception):
    """The client closed the connection: nobody waits for an answer."""


def of_photos(failures: Sequence[tuple[str, Failure]]) -> ProblemError:
    """The problem of a request all of whose photos failed.

    Args:
        failures: name of and what is wrong with each photo; at least one.
    """
    _, first = failures[0]
    errors = [{"photo": photo, **failure.to_dict()} for photo, failure in failures]
    detail = first.message
    if len(failures) > 1:
        detail = f"none of the {len(failures)} photos can be used; the first: {detail}"
    status = PHOTO_STATUS.get(first.code, 422)
    return ProblemError(status, first.code, detail, errors=errors)


def request_id(scope: Scope) -> str:
    """The request's id, where it has one already."""
    return str(scope.get("state", {}).get("request_id", ""))
