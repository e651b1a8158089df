"""The errors a user can meet, each with the exit code of the command that ends with it.

    InoptError (1: ours, or the machine's)
    └── UsageError (2: the user's, who can mend it)

A message is one line: the thing, the place, the reason and the way out. That of a policy is one
such line for each mistake in it.
"""

from __future__ import annotations


class InoptError(Exception):
    """Something failed that the user did not cause."""

    exit_code = 1


class UsageError(InoptError):
    """What was asked for cannot be done, and the message says what to change."""

    exit_code = 2
