"""What layouts call splits and classes, brought to one form."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping

from carspotter.errors import DataError
from carspotter.names import split_name, stanford_names

_SPLITS = {"train": "train", "test": "test", "validation": "val", "valid": "val", "val": "val"}


def split_called(name: str) -> str | None:
    """The split that a folder, file or cell names ("Valid" is "val"); None where it is none."""
    return _SPLITS.get(name.strip().casefold())


def official_names(names: Collection[str]) -> Mapping[str, str]:
    """The class that each name stands for.

    Names that all are Stanford's stand for the devkit's, however a folder bent them ("Ram C-V"):
    by name, never by position, since the devkit's order is not that of sorted folders. If one is
    not, each stands for itself.
    """
    found = {name: split_name(name).label for name in names}
    if all(label in stanford_names() for label in found.values()):
        return found
    return {name: name for name in names}


def class_order(labels: Collection[str]) -> tuple[str, ...]:
    """The classes that are there, in the devkit's order if all are Stanford's, else sorted."""
    if all(label in stanford_names() for label in labels):
        return tuple(label for label in stanford_names() if label in set(labels))
    return tuple(sorted(set(labels)))


def check_spelling(labels: Collection[str], where: object) -> None:
    """Refuse two classes that differ only in case, blanks, hyphens or the like.

    Raises:
        DataError: there are such; one class would be learnt as two.
    """
    seen: dict[str, str] = {}
    for label in sorted(set(labels)):
        other = seen.setdefault(plain(label), label)
        if other != label:
            raise DataError(
                f"{where}: the classes {other!r} and {label!r} differ only in spelling; "
                "give one class one name"
            )


def plain(name: str) -> str:
    """A name without what folders and file systems change: case, blanks, `-`, `_`, `/`."""
    return re.sub(r"[\s_/\-]+", "", unicodedata.normalize("NFKC", name).casefold()) or name
