"""`carspotter data download`: from a name to a verified data set."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from carspotter.data.download import SOURCES, Origin, download, in_words
from carspotter.data.index import fingerprint
from carspotter.errors import UsageError


def run(name: str, to: Path, origin: Origin, *, as_json: bool, quiet: bool) -> None:
    """Fetch a data set, and print what it holds."""
    source = SOURCES.get(name)
    if source is None:
        raise UsageError(f"{name}: no data set that can be fetched; there is: {', '.join(SOURCES)}")
    data = download(source, to, origin, progress=not quiet)
    pictures = Counter(picture.split for picture in data.pictures)
    if as_json:
        about = {
            "data": str(to),
            "layout": data.layout,
            "pictures": pictures,
            "classes": len(data.class_names),
            "fingerprint": fingerprint(data.pictures),
        }
        print(json.dumps(about))
        return
    print(f"{to}: {name}, {in_words(pictures)} of {len(data.class_names)} classes, verified")
