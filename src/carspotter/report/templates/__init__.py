"""The pages' templates, and how they are filled in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(template: str, **values: Any) -> str:
    """Fill in a template of this package; what is put into it is escaped."""
    environment = Environment(
        loader=PackageLoader("carspotter.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = _percent
    environment.filters["interval"] = _interval
    return environment.get_template(template).render(**values)


def _percent(share: float | None, digits: int = 2) -> str:
    return "" if share is None else f"{100 * share:.{digits}f} %"


def _interval(bounds: Mapping[str, Any] | tuple[float, float] | None, digits: int = 1) -> str:
    if bounds is None:
        return ""
    low, high = bounds
    return f"{100 * float(low):.{digits}f} to {100 * float(high):.{digits}f}"
