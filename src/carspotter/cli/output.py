"""What verbs print."""

from __future__ import annotations

import codecs
import json
import sys
from typing import Any


def in_json(value: Any) -> str:
    """A value as one line of JSON that stdout can carry, whatever its encoding.

    Letters stand as they are where it is UTF-8, and are escaped where it is not: what stdout would
    put in the place of those that it has not is no JSON.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    return json.dumps(value, ensure_ascii=codecs.lookup(encoding).name != "utf-8")
