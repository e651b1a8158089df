"""What may be found in an upper layer: codes that stay, levels, reasons and ways out."""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple


class Level(Enum):
    """How bad it is: does not show as it was meant, is of no use, or is merely worth knowing."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Kind(NamedTuple):
    """One kind of finding.

    ``reason`` and ``way`` are completed with what was found; ``mends``: ``--fix`` may do it,
    since no mount shows anything else afterwards (or what it showed was an error).
    """

    level: Level
    name: str
    reason: str
    way: str
    mends: bool = False


class Finding(NamedTuple):
    """One thing found at one path (relative to the layer, or to the work directory)."""

    code: str
    path: bytes
    reason: str
    way: str
    fixed: bool = False
    in_work: bool = False

    @property
    def kind(self) -> Kind:
        """What it is one of."""
        return KINDS[self.code]


_E, _W, _N = Level.ERROR, Level.WARNING, Level.NOTE
_UNMARK: Final = "remove the mark: setfattr -x {mark}"

KINDS: Final = {
    # Whiteouts and opaque directories.
    "OVL101": Kind(
        _W, "whiteout-under-opaque",
        "a whiteout where nothing of the lower layers shows: it is listed, but does not exist",
        "remove it", mends=True,
    ),
    "OVL102": Kind(
        _N, "whiteout-of-nothing",
        "a whiteout that hides nothing in the lower layers that were given",
        "remove it if these are all",
    ),
    "OVL103": Kind(
        _W, "whiteout-unmerged",
        "a whiteout in a directory that no lower layer has: it is listed, but does not exist",
        "remove it if the lower layers that were given are all",
    ),
    "OVL104": Kind(
        _W, "xattr-whiteout",
        "a whiteout written as an extended attribute: not looked for in an upper layer's listings",
        "replace it by a character device 0:0", mends=True,
    ),
    "OVL105": Kind(
        _E, "opaque-value",
        "the opaque mark has the value {value}: only 'y' is taken, so what lies below shows",
        "setfattr -n {mark} -v y, or remove the mark",
    ),
    "OVL106": Kind(
        _N, "opaque-x",
        "the opaque mark says that xattr whiteouts may be here: of use in a lower layer only",
        "none is needed",
    ),
    # What other tools write instead.
    "OVL111": Kind(
        _W, "aufs-whiteout",
        "a whiteout as aufs and container archives write it: shown as an ordinary file",
        "if it is one: remove it and mknod {target} c 0 0; else rename it",
    ),
    "OVL112": Kind(
        _W, "aufs-opaque",
        "an opaque mark as fuse-overlayfs and archives write it: shown as an ordinary file, while "
        "what lies below shows",
        "if it is one: remove it and setfattr -n {mark} -v y on its directory",
    ),
    "OVL113": Kind(
        _W, "aufs-opaque-too",
        "fuse-overlayfs's opaque mark beside the one that counts: shown as an ordinary file",
        "remove it", mends=True,
    ),
    "OVL114": Kind(
        _W, "aufs-file",
        "a file of aufs's own housekeeping: shown as an ordinary file",
        "remove it if this was an aufs branch",
    ),
    # Marks.
    "OVL121": Kind(
        _W, "other-marks",
        "{mark} in a layer whose marks are {prefix}*: shown as an ordinary attribute, not obeyed",
        "rename it if it is meant to count (fsck {option} checks the layer by such marks), else "
        "remove it",
    ),
    "OVL122": Kind(
        _W, "mark-on-wrong-type", "{mark} on a {type}, where it means nothing", _UNMARK, mends=True
    ),
    "OVL123": Kind(
        _W, "mark-value", "{mark} has the value {value}, which means nothing", _UNMARK, mends=True
    ),
    "OVL124": Kind(_N, "unknown-mark", "{mark} is no mark that Linux 6.18 knows", _UNMARK),
    "OVL125": Kind(
        _W, "origin-broken",
        "the origin cannot be read ({why}): the inode number will change at each mount",
        "remove the mark", mends=True,
    ),
    "OVL126": Kind(
        _W, "origin-type",
        "the origin names a {other}, but this is a {type}",
        "remove the mark", mends=True,
    ),
    "OVL127": Kind(
        _N, "impure-missing",
        "copies from lower layers are in here, but the directory is not marked impure: listings "
        "may tell other inode numbers than stat",
        "setfattr -n {mark} -v y", mends=True,
    ),
    # Features that a mount has to have on.
    "OVL131": Kind(
        _W, "feature-redirect",
        "renamed with redirect_dir=on (from {value}): needs a mount that follows redirects",
        "mount with redirect_dir=on or follow; inopt does not read it",
    ),
    "OVL132": Kind(
        _W, "feature-metacopy",
        "only its metadata was copied up (metacopy): its contents are in a lower layer",
        "mount with metacopy=on; inopt does not read it",
    ),
    "OVL133": Kind(
        _W, "feature-data-only",
        "its contents are at {value}, perhaps in a data-only lower layer (metacopy and redirect)",
        "mount with metacopy=on and that layer; inopt does not read it",
    ),
    "OVL134": Kind(
        _W, "feature-verity",
        "its contents in a lower layer must have a digest (verity)",
        "mount with metacopy=on,verity=on; inopt does not read it",
    ),
    "OVL135": Kind(
        _W, "feature-nlink",
        "its links were counted through an index (index=on)",
        "mount with index=on and the same work directory; inopt does not read it",
    ),
    "OVL136": Kind(
        _W, "feature-index",
        "the work directory has an index with {count} entries: the upper layer was made with "
        "index=on",
        "mount with index=on; inopt does not read it",
    ),
    "OVL137": Kind(
        _N, "feature-protattr",
        "flags of chattr(1), kept as an attribute ({value}): the overlay shows them",
        "none is needed; commit and export leave them out",
    ),
    # The places.
    "OVL141": Kind(
        _W, "work-leftover",
        "left in the work directory by a mount that did not end well",
        "remove it; the next mount does so, too", mends=True,
    ),
    "OVL142": Kind(
        _E, "work-volatile",
        "the mount was volatile and did not end well, so the upper layer may lack data that was "
        "written: the kernel refuses it",
        "discard both, or remove this directory if the upper layer is whole",
    ),
    "OVL143": Kind(
        _E, "work-elsewhere",
        "the work directory is on another filesystem than the upper layer: no mount takes both",
        "name one beside the upper layer",
    ),
    "OVL144": Kind(
        _E, "no-xattrs",
        "the filesystem has no {prefix}* attributes: it cannot have an upper layer",
        "move the layer to another filesystem",
    ),
    "OVL145": Kind(
        _E, "mountpoint",
        "something is mounted here, which no mount of the layer shows; not looked into",
        "unmount it",
    ),
    "OVL146": Kind(_E, "unreadable", "{why}", "see the kernel's log for the disk's errors"),
}  # fmt: skip


def finding(code: str, path: bytes, *, in_work: bool = False, **found: str) -> Finding:
    """A finding of the kind *code*, told with what was found."""
    kind = KINDS[code]
    reason, way = kind.reason.format(**found), kind.way.format(**found)
    return Finding(code, path, reason, way, in_work=in_work)
