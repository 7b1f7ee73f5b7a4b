"""The exception tree. Every message names the thing that is wrong and says what to do.

CarspotterError
├── UsageError          the call itself is wrong (the command line exits with 2)
│   └── MissingExtraError   a verb needs packages of an extra that is not installed
├── PhotoError          one photo cannot be used; `code` says why (see `PhotoError.CODES`)
├── ModelFileError      a model file or checkpoint cannot be used
├── GarageError         a garage of taught cars cannot be used
├── DataError           a data set cannot be used
├── RecipeError         a training recipe cannot be used
└── ExportError         a model was not written, since its answers would differ
"""

from __future__ import annotations

from typing import ClassVar


class CarspotterError(Exception):
    """Base of all errors that carspotter raises on purpose."""


class UsageError(CarspotterError):
    """The call is wrong: an option that does not fit, a value out of range."""


class MissingExtraError(UsageError):
    """A verb needs packages that the base install does not bring.

    Args:
        what: what was asked for, as the user would name it ("train").
        extra: the extra that brings it ("train").
    """

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs more packages: pip install 'carspotter[{extra}]'")
        self.extra = extra


class PhotoError(CarspotterError):
    """One photo cannot be used.

    Args:
        code: one of `CODES`, stable, for programs.
        message: for people; names the photo and says what to do.
    """

    CODES: ClassVar[frozenset[str]] = frozenset(
        {
            "not_found",
            "unreadable",
            "empty",
            "not_an_image",
            "broken",
            "too_large",
            "too_small",
            "box_outside",
        }
    )

    def __init__(self, code: str, message: str) -> None:
        if code not in self.CODES:
            raise ValueError(f"unknown photo error code {code!r}")
        super().__init__(message)
        self.code = code


class ModelFileError(CarspotterError):
    """A model file or checkpoint is missing, damaged, too new, or not carspotter's."""


class GarageError(CarspotterError):
    """A garage file is missing, damaged, too new, or of another model."""


class DataError(CarspotterError):
    """A data set has a layout, a label or a picture that cannot be used."""


class RecipeError(CarspotterError):
    """A training recipe has an unknown key, a bad value, no weights to be had, or diverges."""


class ExportError(CarspotterError):
    """An export was refused, since the file's answers would not be the checkpoint's."""
