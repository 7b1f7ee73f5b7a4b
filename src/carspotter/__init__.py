"""carspotter: point it at a photo and it says which car that is.

import carspotter

spotter = carspotter.load()
found = spotter.identify("photo.jpg")
print(found.answer.label, found.answer.level, found.answer.confidence)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    from carspotter.errors import (
        CarspotterError,
        DataError,
        ExportError,
        GarageError,
        MissingExtraError,
        ModelFileError,
        PhotoError,
        RecipeError,
        UsageError,
    )
    from carspotter.explain import Explanation, HeatMap
    from carspotter.garage import Garage
    from carspotter.loading import load
    from carspotter.names import CarName
    from carspotter.results import (
        Answer,
        Candidate,
        Car,
        Failure,
        Identification,
        LabelSet,
        ModelInfo,
    )
    from carspotter.spotter import Spotter

# Loaded when first asked for, so that `import carspotter` costs nothing that is not used.
_HOMES = {
    "CarspotterError": "errors",
    "DataError": "errors",
    "ExportError": "errors",
    "GarageError": "errors",
    "MissingExtraError": "errors",
    "ModelFileError": "errors",
    "PhotoError": "errors",
    "RecipeError": "errors",
    "UsageError": "errors",
    "Explanation": "explain",
    "HeatMap": "explain",
    "Garage": "garage",
    "CarName": "names",
    "Answer": "results",
    "Candidate": "results",
    "Car": "results",
    "Failure": "results",
    "Identification": "results",
    "LabelSet": "results",
    "ModelInfo": "results",
    "Spotter": "spotter",
    "load": "loading",
}

__all__ = [
    "Answer",
    "Candidate",
    "Car",
    "CarName",
    "CarspotterError",
    "DataError",
    "Explanation",
    "ExportError",
    "Failure",
    "Garage",
    "GarageError",
    "HeatMap",
    "Identification",
    "LabelSet",
    "MissingExtraError",
    "ModelFileError",
    "ModelInfo",
    "PhotoError",
    "RecipeError",
    "Spotter",
    "UsageError",
    "__version__",
    "load",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib import metadata  # a tenth of a cold start, for what is seldom asked

        return metadata.version("carspotter")
    if name not in _HOMES:
        raise AttributeError(f"module 'carspotter' has no attribute {name!r}")
    return getattr(importlib.import_module(f"carspotter.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
