"""What a verb says when the packages of its extra are missing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from carspotter.errors import MissingExtraError


@contextlib.contextmanager
def needs(verb: str, *, extra: str) -> Iterator[None]:
    """Turn a missing package into an error that says which extra brings it.

    Raises:
        MissingExtraError: a package that is not carspotter's own is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "carspotter":
            raise
        raise MissingExtraError(verb, extra) from error
