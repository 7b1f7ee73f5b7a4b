"""What the routes of one worker share."""

from __future__ import annotations

from dataclasses import dataclass

from carspotter.serve.engine import Engine
from carspotter.serve.metrics import Metrics
from carspotter.serve.settings import Settings
from carspotter.serve.uploads import Receiver


@dataclass(frozen=True)
class Service:
    """A worker's parts.

    Attributes:
        settings: of the service.
        metrics: its figures.
        engine: looks at photos.
        receiver: takes uploads in.
    """

    settings: Settings
    metrics: Metrics
    engine: Engine
    receiver: Receiver
