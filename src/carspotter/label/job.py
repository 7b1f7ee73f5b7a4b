"""What a labelling is of: which photos, by which model, looked at how."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from carspotter.errors import UsageError
from carspotter.label.rows import FORMAT_VERSION
from carspotter.loading import DEFAULT_MODEL, detector_file, load, shipped_models
from carspotter.results import ModelInfo
from carspotter.spotter import CropMode, Spotter


@dataclass(frozen=True)
class Recogniser:
    """How photos are looked at.

    Attributes:
        model: a shipped model's name or a file; None: the embedded model.
        detector: as for `carspotter.load`.
        garage: a file of taught cars.
        min_confidence: as for `carspotter.load`.
        crop: as for `Spotter.identify`.
    """

    model: str | None = None
    detector: str | None = None
    garage: str | None = None
    min_confidence: float | None = None
    crop: CropMode = "auto"

    def load(self, threads: int | None) -> Spotter:
        """Load the model, to compute with so many threads.

        Raises:
            CarspotterError: as `carspotter.load` does.
        """
        return load(
            self.model,
            detector=self.detector,
            garage=self.garage,
            min_confidence=self.min_confidence,
            threads=threads,
        )

    def from_anywhere(self) -> Recogniser:
        """The same with whole paths, for a process in another folder."""
        known = {*shipped_models(), "embedded", "none", None}

        def whole(name: str | None) -> str | None:
            return name if name in known else str(Path(str(name)).resolve())

        return replace(
            self,
            model=whole(self.model),
            detector=whole(self.detector),
            garage=whole(self.garage),
        )

    def options(self) -> dict[str, Any]:
        """What shapes the answers besides the model, to be compared with another's."""
        name = DEFAULT_MODEL if self.model is None else self.model
        looks = detector_file(self.detector, is_shipped=name in shipped_models())
        return {
            "crop": self.crop,
            "detector": None if looks is None else _sha256(Path(looks)),
            "garage": None if self.garage is None else _sha256(Path(self.garage)),
            "min_confidence": self.min_confidence,
        }


@dataclass(frozen=True)
class Job:
    """What makes two calls the same work; kept in the work folder and in the results.

    Attributes:
        model: which one answers.
        options: see `Recogniser.options`; and of the results: `embeddings`, `column`.
        sources: whole paths, and addresses.
        base: the folder from which relative paths are meant.
    """

    model: ModelInfo
    options: Mapping[str, Any]
    sources: tuple[str, ...]
    base: str

    def to_dict(self) -> dict[str, Any]:
        return {"format_version": FORMAT_VERSION, **asdict(self), "sources": list(self.sources)}

    def check_same(self, other: Mapping[str, Any], place: Path) -> None:
        """Check that what lies in a place is of this job.

        Args:
            other: what `to_dict` gave, and perhaps more.
            place: where it was found, for the error.

        Raises:
            UsageError: it is of another model, source or options, or cannot be understood.
        """
        keep = "what is there is left as it is; name another --out"
        try:
            if int(other["format_version"]) > FORMAT_VERSION:
                raise UsageError(f"{place}: is of a newer format; pip install -U carspotter")
            model = ModelInfo(**{f.name: str(other["model"][f.name]) for f in fields(ModelInfo)})
            sources, options = tuple(other["sources"]), dict(other["options"])
        except (KeyError, TypeError, ValueError):
            raise UsageError(f"{place}: is not of carspotter label; {keep}") from None
        if model.sha256 != self.model.sha256:
            raise UsageError(
                f"{place}: is of another model, {_short(model)}, not {_short(self.model)}; {keep}"
            )
        if sources != self.sources:
            raise UsageError(
                f"{place}: is of another source, {', '.join(sources)}, not "
                f"{', '.join(self.sources)}; {keep}"
            )
        keys = sorted({*options, *self.options})
        differ = [key for key in keys if options.get(key) != self.options.get(key)]
        if differ:
            raise UsageError(f"{place}: is of other options ({', '.join(differ)}); {keep}")


def _short(model: ModelInfo) -> str:
    return f"{model.name} ({model.sha256[:12]})"


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
