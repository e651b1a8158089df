"""An audit trail: one JSON line for each operation that the policy hands to the handlers."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime
from typing import Any

import structlog

from inopt import SessionReach
from inopt.handlers.audit import AuditHandlers

log = structlog.get_logger("audit")


class AuditTrail(AuditHandlers):
    """`AuditHandlers` does what was asked for and describes it; here the records go to a file."""

    async def started(self, session: SessionReach) -> None:
        """Open the file that ``AUDIT_LOG`` names, else one beside the daemon's own log."""
        beside = os.path.join(session.runtime_directory, f"{os.getpid()}.audit")
        path = os.path.abspath(os.environ.get("AUDIT_LOG") or beside)
        self.trail = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        log.info("audit trail", path=path)

    async def stopped(self) -> None:
        """Close the file."""
        os.fsync(self.trail)
        os.close(self.trail)

    def record(self, record: dict[str, Any]) -> None:
        """Add one line: a single write(2) with O_APPEND, so threads need no lock."""
        now = datetime.fromtimestamp(time.time(), UTC).isoformat()
        line = json.dumps({"time": now} | record, ensure_ascii=True) + "\n"
        try:
            os.write(self.trail, line.encode())
        except OSError as error:
            # The operation has been done: failing it now would not undo it.
            log.error("record lost", reason=error.strerror, **record)
