"""Logs by structlog: one line for each mount, unmount and downgrade, none for each request."""

from __future__ import annotations

import logging
from typing import Final, TextIO

import structlog

LEVELS: Final = ("debug", "info", "warning", "error")


def configure(stream: TextIO, form: str, level: str) -> None:
    """Send all logs of this process to *stream*.

    *form* is ``console`` or ``json``; *level* one of `LEVELS`.
    """
    renderer: structlog.typing.Processor
    if form == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(
            colors=stream.isatty(),
            pad_event_to=0,
            # A reader waits until a traceback is written: that must not take a second.
            exception_formatter=structlog.dev.plain_traceback,
        )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([structlog.processors.dict_tracebacks] if form == "json" else []),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=False,
    )
