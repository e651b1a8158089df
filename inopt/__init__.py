"""FUSE filesystems that stay out of the way: the kernel serves what a YAML policy lets it."""

from __future__ import annotations

from inopt._version import __version__ as __version__
