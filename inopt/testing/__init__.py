"""For tests of handlers: mounts without a kernel, and a record of what was asked.

`fake_mount` needs neither privileges nor /dev/fuse. For the fixture ``inopt_mount``, which mounts
for real where it can, write ``pytest_plugins = ["inopt.testing.fixtures"]`` into a conftest.py.
"""

from __future__ import annotations

from inopt.testing.calls import FakeKernel as FakeKernel
from inopt.testing.capture import Captured as Captured
from inopt.testing.capture import capture_requests as capture_requests
from inopt.testing.fake import fake_mount as fake_mount
from inopt.testing.wire import Answer as Answer
from inopt.testing.wire import Caller as Caller

__all__ = ["Answer", "Caller", "Captured", "FakeKernel", "capture_requests", "fake_mount"]
