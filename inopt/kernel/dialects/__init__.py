"""How one kernel generation spells passthrough: one small class each, behind one interface.

Nothing else in inopt knows how a backing file is registered or named in a reply. A new generation
is a class in this room, its place in `KNOWN`, and a test.
"""

from __future__ import annotations

from typing import Final

from inopt.kernel.dialects.android import Android as Android
from inopt.kernel.dialects.ino import InoV1 as InoV1
from inopt.kernel.dialects.ino import InoV2 as InoV2
from inopt.kernel.dialects.interface import NO_OPS as NO_OPS
from inopt.kernel.dialects.interface import Dialect as Dialect
from inopt.kernel.dialects.interface import Tier as Tier
from inopt.kernel.dialects.mainline import MAINLINE as MAINLINE
from inopt.kernel.dialects.mainline import Mainline as Mainline
from inopt.kernel.dialects.plain import PLAIN as PLAIN
from inopt.kernel.dialects.plain import Plain as Plain
from inopt.kernel.dialects.rfc_v7 import RfcV7 as RfcV7

# Best first. Of those that a kernel speaks, the first is taken.
KNOWN: Final[tuple[type[Plain], ...]] = (InoV1, InoV2, Mainline, Android, RfcV7)
BY_NAME: Final[dict[str, type[Plain]]] = {kind.name: kind for kind in KNOWN}
