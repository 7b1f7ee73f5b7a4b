"""Which pictures had better be left out of training, and why."""

from __future__ import annotations

from carspotter.audit.check import Check
from carspotter.audit.duplicates import Copy
from carspotter.data import Exclusion, Picture


def exclusions(check: Check) -> tuple[Exclusion, ...]:
    """What `train` should leave out, in the order of the data set.

    Of the training and validation pictures: those that cannot be read; copies of test pictures;
    copies under different labels, all of them; training pictures that are copies of validation
    pictures; and exact copies, but for the first. Near copies within one split and class stay: two
    crops of a photo are two pictures. Test pictures are never listed: what is measured on, is not
    chosen by what is found in it. Nor are likely label errors: a person should look at those.
    """
    found = []
    for picture in check.data.pictures:
        if picture.split == "test":
            continue
        broken = check.broken.get(picture.key)
        copies = check.duplicates.copies.get(picture.key, ())
        reason = _reason(picture, copies, check) if broken is None else f"broken: {broken}"
        if reason is not None:
            found.append(Exclusion(picture.key, reason))
    return tuple(found)


def _reason(picture: Picture, copies: tuple[Copy, ...], check: Check) -> str | None:
    for copy in copies:
        if copy.of.split == "test":
            return f"leak: {_said(picture, copy)}"
    for copy in copies:
        if copy.of.label != picture.label:
            return f"contradictory: {_said(picture, copy)}"
    for copy in copies:
        if picture.split == "train" and copy.of.split == "val":
            return f"leak: {_said(picture, copy)}"
    for copy in copies:
        same_split = copy.of.split == picture.split
        if copy.exact and same_split and check.places[copy.of.key] < check.places[picture.key]:
            return f"duplicate: {_said(picture, copy)}"
    return None


def _said(picture: Picture, copy: Copy) -> str:
    how = "copy of" if copy.exact else f"near copy ({copy.similarity:.2f}) of"
    label = "" if copy.of.label == picture.label else f", which is labelled {copy.of.label!r}"
    return f"{how} {copy.of.key}{label}"
