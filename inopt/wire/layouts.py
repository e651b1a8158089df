"""The binary layouts of linux/fuse.h as precompiled ``struct.Struct`` values.

FUSE speaks the machine's byte order. inopt supports little-endian machines, so the layouts say
``<``, which also switches off implicit alignment: every padding byte is written out as ``x``, is
ignored when read and is zero when written. Each name is the kernel's structure without ``fuse_``.

Source: include/uapi/linux/fuse.h (7.31 to 7.45); ``ENTRY2_OUT`` is ``fuse_entry2_out`` of the
inode-operations passthrough postings (2026).
"""

from __future__ import annotations

from struct import Struct
from typing import Final

_ATTR = "QQQqqqIIIIIIIIII"
_SX_TIME = "qI4x"
_STATX = f"IIQIIIH2xQQQQ{_SX_TIME * 4}IIII112x"

# Headers.
IN_HEADER: Final = Struct("<IIQQIIIH2x")
OUT_HEADER: Final = Struct("<IiQ")

# Requests.
FORGET_IN: Final = Struct("<Q")
FORGET_ONE: Final = Struct("<QQ")
BATCH_FORGET_IN: Final = Struct("<I4x")
GETATTR_IN: Final = Struct("<I4xQ")
SETATTR_IN: Final = Struct("<I4xQQQqqqIIII4xII4x")
MKNOD_IN: Final = Struct("<III4x")
MKDIR_IN: Final = Struct("<II")
RENAME_IN: Final = Struct("<Q")
RENAME2_IN: Final = Struct("<QI4x")
LINK_IN: Final = Struct("<Q")
OPEN_IN: Final = Struct("<II")
CREATE_IN: Final = Struct("<IIII")
READ_IN: Final = Struct("<QQIIQI4x")
WRITE_IN: Final = Struct("<QQIIQI4x")
RELEASE_IN: Final = Struct("<QIIQ")
FSYNC_IN: Final = Struct("<QI4x")
SETXATTR_COMPAT_IN: Final = Struct("<II")
SETXATTR_IN: Final = Struct("<III4x")
GETXATTR_IN: Final = Struct("<I4x")
FLUSH_IN: Final = Struct("<Q8xQ")
INIT_COMPAT_IN: Final = Struct("<IIII")
INIT_IN: Final = Struct("<IIIII44x")
LK_IN: Final = Struct("<QQQQIII4x")
ACCESS_IN: Final = Struct("<I4x")
INTERRUPT_IN: Final = Struct("<Q")
BMAP_IN: Final = Struct("<QI4x")
IOCTL_IN: Final = Struct("<QIIQII")
POLL_IN: Final = Struct("<QQII")
NOTIFY_RETRIEVE_IN: Final = Struct("<8xQI20x")
FALLOCATE_IN: Final = Struct("<QQQI4x")
LSEEK_IN: Final = Struct("<QqI4x")
COPY_FILE_RANGE_IN: Final = Struct("<QQQQQQQ")
SETUPMAPPING_IN: Final = Struct("<QQQQQ")
REMOVEMAPPING_IN: Final = Struct("<I")
REMOVEMAPPING_ONE: Final = Struct("<QQ")
SYNCFS_IN: Final = Struct("<8x")
STATX_IN: Final = Struct("<I4xQII")
NO_BODY: Final = Struct("<")

# The extension block at the end of a request.
EXT_HEADER: Final = Struct("<II")
SUPP_GROUPS: Final = Struct("<I")
SECCTX: Final = Struct("<I4x")

# Replies.
ATTR: Final = Struct(f"<{_ATTR}")
STATX: Final = Struct(f"<{_STATX}")
ENTRY_OUT: Final = Struct(f"<QQQQII{_ATTR}")
ENTRY2_OUT: Final = Struct(f"<QQQQIIiI8x{_STATX}")
ATTR_OUT: Final = Struct(f"<QI4x{_ATTR}")
STATX_OUT: Final = Struct(f"<QII16x{_STATX}")
OPEN_OUT: Final = Struct("<QIi")
WRITE_OUT: Final = Struct("<I4x")
STATFS_OUT: Final = Struct("<QQQQQIII4x24x")
GETXATTR_OUT: Final = Struct("<I4x")
LK_OUT: Final = Struct("<QQII")
INIT_COMPAT_OUT: Final = Struct("<II")
INIT_22_OUT: Final = Struct("<IIIIHHI")
INIT_OUT: Final = Struct("<IIIIHHIIHHIIH22x")
BMAP_OUT: Final = Struct("<Q")
IOCTL_OUT: Final = Struct("<iIII")
POLL_OUT: Final = Struct("<I4x")
LSEEK_OUT: Final = Struct("<Q")
COPY_FILE_RANGE_OUT: Final = Struct("<Q")
DIRENT: Final = Struct("<QQII")

# Notifications.
NOTIFY_POLL_WAKEUP_OUT: Final = Struct("<Q")
NOTIFY_INVAL_INODE_OUT: Final = Struct("<Qqq")
NOTIFY_INVAL_ENTRY_OUT: Final = Struct("<QII")
NOTIFY_DELETE_OUT: Final = Struct("<QQI4x")
NOTIFY_STORE_OUT: Final = Struct("<QQI4x")
NOTIFY_RETRIEVE_OUT: Final = Struct("<QQQI4x")
NOTIFY_PRUNE_OUT: Final = Struct("<I12x")
