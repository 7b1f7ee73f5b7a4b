"""`carspotter identify --explain DIR`: a picture of each photo with its heat map."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from carspotter.errors import UsageError
from carspotter.files import replacing
from carspotter.listing import HEAT_MAP_ENDING

if TYPE_CHECKING:
    from carspotter.explain import Explanation
    from carspotter.photo import PhotoSource
    from carspotter.results import Identification

_LONGEST_STEM = 200
"""Bytes that a photo's name may take of the 255 that most file systems give a name."""


class HeatMapFolder:
    """Where the pictures go. Each photo has a name of its own, and none meets a photo.

    Args:
        folder: it is made if it is missing.
        sources: all photos of the call.

    Raises:
        UsageError: nothing can be written there.
    """

    def __init__(self, folder: Path, sources: Sequence[PhotoSource]) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise UsageError(f"--explain {folder}: cannot be written ({error.strerror})") from error
        self._folder = folder
        here = os.path.realpath(folder)
        real = functools.cache(os.path.realpath)
        # In one case: some file systems take a.jpg and A.jpg for the same.
        self._taken = {
            path.name.casefold()
            for source in sources
            if isinstance(source, str)
            for path in (Path(source), Path(os.path.realpath(source)))
            if real(path.parent) == here
        }

    def written(self, explanations: Iterable[Explanation]) -> Iterator[Identification]:
        """Write the picture of each photo that could be used, and pass on its result.

        Raises:
            OSError: the disk is full, and the like.
        """
        for explanation in explanations:
            file = self._file(explanation.result.photo)  # a failed photo too keeps its name
            if explanation.result.error is None:
                with replacing(file) as part:
                    explanation.overlay().save(part, "JPEG", quality=90)
            yield explanation.result

    def _file(self, photo: str) -> Path:
        """A file of no other photo: its name is the photo's, with a number from the second on."""
        stem = Path(photo.strip("<>") if photo.startswith("<") else photo).stem
        while len(os.fsencode(stem)) > _LONGEST_STEM:
            stem = stem[:-1]
        number, name = 1, f"{stem}{HEAT_MAP_ENDING}"
        while name.casefold() in self._taken:
            number += 1
            name = f"{stem}-{number}{HEAT_MAP_ENDING}"
        self._taken.add(name.casefold())
        return self._folder / name
