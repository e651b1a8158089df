"""The layers of one mount: opened, and checked before anything is mounted."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from typing import Final, NoReturn

import structlog

from inopt import syscalls
from inopt.backing.filesystems import Filesystem, mount_descriptor
from inopt.backing.identity import attributes_of
from inopt.exceptions import UsageError
from inopt.layers.format import Format, filesystem_uuid, is_whiteout
from inopt.layers.options import LayerOptions
from inopt.layers.taking import take
from inopt.layers.working import clear, mark_volatile, take_work, unmark_volatile
from inopt.wire.replies import Attributes

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_LOWER: Final = syscalls.MOUNT_ATTR_NOATIME | syscalls.MOUNT_ATTR_RDONLY
_PROBE: Final = b"#inopt"
# Of the numbers of inodes on other devices than the topmost layer's: see `Layer.number`.
_ELSEWHERE: Final = 1 << 62
_OWN_BITS: Final = 48


class Layer:
    """One directory tree of several.

    ``root``: a descriptor of it on a private copy of its mount: what is mounted below does not
    show, and lower layers can neither be changed by it nor have their access times moved.
    ``device``: the root's, major and minor. ``key_mount``: the mount id by which inodes of this
    device are known, in whatever layer. ``device_index``: of its device among those of all layers,
    0 for the topmost layer's.
    """

    __slots__ = (
        "attributes", "device", "device_index", "filesystem", "is_upper", "key_mount", "path",
        "root", "uuid",
    )  # fmt: skip

    def __init__(self, path: str, root: int, *, is_upper: bool) -> None:
        self.path = path
        self.root = root
        self.is_upper = is_upper
        self.attributes: Attributes = attributes_of(root)
        self.filesystem = Filesystem(
            self.attributes.mount_id,
            self.attributes.dev_major,
            self.attributes.dev_minor,
            mount_descriptor(root),
        )
        self.device = self.attributes.dev_major, self.attributes.dev_minor
        self.key_mount = self.attributes.mount_id
        self.device_index = 0
        self.uuid = filesystem_uuid(root)

    def has(self, attributes: Attributes) -> bool:
        """Whether an inode is on the layer's own device (one in a btrfs subvolume is not)."""
        return self.device == (attributes.dev_major, attributes.dev_minor)

    def number(self, inode_number: int) -> int:
        """What an inode of this layer is called: its own number, or one that shows the device.

        Always the same, so that a listing can tell it, too, and what remembers numbers finds them
        again after another mount. (Numbers of more than 48 bits are folded; no more is known
        of a filesystem that has them than that they are seldom.)
        """
        if not self.device_index:
            return inode_number
        folded = inode_number ^ inode_number >> _OWN_BITS
        return _ELSEWHERE | self.device_index << _OWN_BITS | folded & (1 << _OWN_BITS) - 1


class Stack:
    """The layers of a mount, topmost first; the first one is written to if there is an upper.

    *noatime*: reading leaves the access times of an upper layer alone, as it does with lower ones.
    Raises `UsageError` for directories that cannot be layers, or not together.
    """

    def __init__(self, options: LayerOptions, *, noatime: bool = False) -> None:
        self.format = Format(user=options.user_marks)
        self.volatile = options.volatile
        self.layers: list[Layer] = []
        self._upper_attributes = syscalls.MOUNT_ATTR_NOATIME if noatime else 0
        self.has_upper = options.upper is not None
        # Of the directory in which what is made takes shape before it shows; -1: there is none.
        self.work = -1
        self._is_marked = False
        # Of directories that no other mount may use meanwhile.
        self._held: list[int] = []
        try:
            self._open(options)
        except BaseException:
            self.close()
            raise

    @property
    def top(self) -> Layer:
        """The layer of which the root's own attributes are."""
        return self.layers[0]

    def close(self) -> None:
        """Close what belongs to no tree; roots and filesystems are closed by it."""
        self.settle()
        for descriptor in (self.work, *self._held):
            if descriptor >= 0:
                os.close(descriptor)
        self.work = -1
        self._held.clear()

    def settle(self) -> None:
        """Bring a volatile upper layer to stable storage, and take its mark away."""
        if self._is_marked:
            self._is_marked = False
            try:
                unmark_volatile(self.work)
            except OSError as error:
                _log.warning("the upper layer stays marked as volatile", error=str(error))

    def _open(self, options: LayerOptions) -> None:
        named = [("--lower", path) for path in options.lower]
        if options.upper is not None:
            named.insert(0, ("--upper", options.upper))
        real = [(what, path, layer_directory(what, path)) for what, path in named]
        if options.work is not None:
            work = layer_directory("--work", options.work)
            _require_apart([*real, ("--work", options.work, work)])
            # One that is taken away with the mount needs no mark.
            mark = options.volatile and not options.temporary
            self._open_upper(real.pop(0), options.work, work, mark=mark)
        else:
            _require_apart(real)
        for _, path, place in real:
            self.layers.append(Layer(path, _private(place, _LOWER), is_upper=False))
        devices: dict[tuple[int, int], Layer] = {}
        for layer in self.layers:
            first = devices.setdefault(layer.device, layer)
            layer.key_mount = first.key_mount
            layer.device_index = list(devices).index(layer.device)

    # --- the layer that is written to ----------------------------------------------------------

    def _open_upper(
        self, upper: tuple[str, str, str], work_path: str, work: str, *, mark: bool
    ) -> None:
        _, path, place = upper
        # One private mount for both: what is made in one directory is moved to the other.
        above = os.path.commonpath([place, work])
        private = _private(above, self._upper_attributes)
        try:
            root = _beneath(private, above, place)
            holder = _beneath(private, above, work)
        finally:
            os.close(private)
        if root < 0 or holder < 0:
            _refuse("--work", work_path, f"not on the mount of --upper {path}", "put it there")
        made = False
        try:
            self.layers.append(Layer(path, root, is_upper=True))
            self._held.append(take("--upper", path, root))
            if os.statvfs(root).f_flag & os.ST_RDONLY:
                _refuse("--upper", path, "mounted read-only", "remount it writable")
            self._held.append(take("--work", work_path, holder))
            try:
                self.work, made = take_work(work_path, holder)
            except OSError as error:
                reason = f"cannot be used: {error.strerror}"
                _refuse("--work", work_path, reason, "name an empty directory")
            self._require_features(path)
            if mark:
                self._mark(work_path)
        except BaseException:
            if made:
                with suppress(OSError):
                    os.rmdir("work", dir_fd=holder)
            raise
        finally:
            os.close(holder)

    def _mark(self, path: str) -> None:
        try:
            mark_volatile(self.work)
        except OSError as error:
            clear(self.work)
            raise UsageError(
                f"--work '{path}': cannot be written to: {error.strerror}: mend that first"
            ) from error
        self._is_marked = True

    def _require_features(self, path: str) -> None:
        """What the kernel's overlayfs wants of the filesystem of an upper layer."""
        marks = self.format
        try:
            descriptor = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o600, dir_fd=self.work)
            try:
                os.setxattr(descriptor, marks.opaque, b"y")
            finally:
                os.close(descriptor)
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT):
                what = "extended attributes" if "xattr" in str(error) else "what an upper needs"
                _refuse(
                    "--upper",
                    path,
                    f"its filesystem lacks {what} ('{marks.prefix}*', O_TMPFILE)",
                    "use a directory on ext4, xfs, btrfs or tmpfs",
                )
            raise UsageError(
                f"--upper '{path}': cannot be written to: {error.strerror}: mend that first"
            ) from error
        try:
            os.mknod(_PROBE, stat.S_IFCHR, 0, dir_fd=self.work)
            syscalls.renameat2(
                self.work, _PROBE, self.work, _PROBE + b"2", syscalls.RENAME_WHITEOUT
            )
            made = is_whiteout(attributes_of(self.work, _PROBE))
        except OSError as error:
            made = False
            _log.debug("no whiteouts", error=str(error))
        clear(self.work)
        if not made:
            _refuse(
                "--upper",
                path,
                "its filesystem makes no whiteouts (RENAME_WHITEOUT)",
                "use a directory on ext4, xfs, btrfs or tmpfs",
            )


def layer_directory(what: str, path: str) -> str:
    """The real path of a directory that *what* names. Raises `UsageError`."""
    real = os.path.realpath(path)
    try:
        status = os.stat(real)
    except OSError as error:
        _refuse(what, path, str(error.strerror), "name an existing directory")
    if not stat.S_ISDIR(status.st_mode):
        _refuse(what, path, "not a directory", "name a directory")
    return real


def _require_apart(named: list[tuple[str, str, str]]) -> None:
    """No layer may be, or be inside of, another one that is written to, nor the same twice."""
    for number, (what, path, place) in enumerate(named):
        for other_what, other_path, other in named[:number]:
            if os.path.samefile(place, other):
                _refuse(what, path, f"the same as {other_what} {other_path}", "name another one")
            if what == other_what == "--lower":
                continue
            if _is_below(place, other):
                _refuse(what, path, f"inside of {other_what} {other_path}", "name another one")
            if _is_below(other, place):
                _refuse(what, path, f"{other_what} {other_path} is inside of it", "name another")


def _is_below(path: str, directory: str) -> bool:
    return path.startswith(directory.rstrip("/") + "/")


def _private(place: str, attributes: int) -> int:
    """A descriptor of *place* on a mount of its own, so that nothing else shows below it.

    *attributes*: ``MOUNT_ATTR_*`` that this mount is to have.
    """
    descriptor = os.open(place, _DIRECTORY)
    quiet = attributes & syscalls.MOUNT_ATTR_NOATIME
    clear_first = syscalls.MOUNT_ATTR_ATIME if quiet else 0
    try:
        private = syscalls.clone_mount(descriptor, attributes, clear_first)
    except OSError as error:
        os.close(descriptor)
        raise UsageError(
            f"'{place}': cannot be made a layer: {error.strerror}: layers need root and Linux 5.12"
        ) from error
    os.close(descriptor)
    return private


def _beneath(private: int, above: str, place: str) -> int:
    """A descriptor of *place* on the private mount of *above*; -1 if it is on another mount."""
    try:
        found = os.open(os.path.relpath(place, above), _DIRECTORY, dir_fd=private)
    except OSError:
        return -1
    if os.path.samestat(os.fstat(found), os.stat(place)):
        return found
    os.close(found)
    return -1


def _refuse(what: str, path: str, reason: str, way_out: str) -> NoReturn:
    raise UsageError(f"{what} '{path}': {reason}: {way_out}")
