"""Structured logs: one JSON object a line, on stderr."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

FIELDS = "fields"
"""The attribute of a log record that holds further members of its line."""


class JsonFormatter(logging.Formatter):
    """Makes a line of JSON of a record."""

    def format(self, record: logging.LogRecord) -> str:
        """The line: time (UTC), level, logger and message, and what the record adds."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def log_config(level: str = "INFO") -> dict[str, Any]:
    """What `logging.config.dictConfig` takes: all of the service's and uvicorn's lines as JSON."""
    own = {"handlers": ["stderr"], "level": level, "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": f"{__name__}.JsonFormatter"}},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "formatter": "json",
                "stream": "ext://sys.stderr",
            }
        },
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": {
            "carspotter": own,
            "uvicorn": own,
            # It warns of each odd byte of a multipart body.
            "python_multipart": {"level": "ERROR"},
        },
    }
