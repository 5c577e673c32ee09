"""Structured logs: one JSON object a line on standard error."""

import json
import logging
import sys
import time
from collections.abc import Mapping
from typing import Any

LOGGER = logging.getLogger("prunit.serve")


class JsonLines(logging.Formatter):
    """`at`, `level`, `message`, and what the call gave as `extra={"fields": {…}}`."""

    def format(self, record: logging.LogRecord) -> str:
        """A line."""
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        found: dict[str, Any] = {"at": at, "level": record.levelname.lower(), "message": record.getMessage()}
        found |= getattr(record, "fields", {})
        if record.exc_info:
            found["exception"] = self.formatException(record.exc_info)
        return json.dumps(found, default=str)


def begin() -> None:
    """Send prunit's and the HTTP server's messages to standard error; of what readers say about bodies only errors."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    levels = {"prunit.serve": logging.INFO, "uvicorn.error": logging.ERROR}
    for name, level in {**levels, "python_multipart": logging.ERROR, "PIL": logging.ERROR}.items():
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)


def tell(message: str, fields: Mapping[str, object] | None = None, *, level: int = logging.INFO) -> None:
    """One line."""
    LOGGER.log(level, message, extra={"fields": fields or {}})
