"""Who has mounted what the tools are given: nothing may change under a mount."""

from __future__ import annotations

from inopt.exceptions import UsageError
from inopt.kernel.mounts import mount_table
from inopt.layers.mounted import layer_mounts
from inopt.layers.tools.places import Directory


def users_of(place: Directory, *, lower: bool = False) -> list[str]:
    """The mountpoints that *place* is the upper or work directory of; *lower*: or a lower layer."""
    return [
        mount.point
        for mount in layer_mounts()
        if mount.has(place.device, place.number, lower=lower)
    ]


def require_unused(place: Directory, why: str, *, lower: bool = False) -> None:
    """Raise `UsageError` if a mount uses *place*; *why*: what must not be done meanwhile."""
    users = users_of(place, lower=lower)
    if users:
        raise UsageError(f"'{place.path}': in use by the mount at '{users[0]}': {why}: unmount it")


def require_no_view(place: Directory, layers: tuple[Directory, ...]) -> None:
    """Raise `UsageError` if *place* is seen through a mount of *layers*, or is a part of one.

    Nor may anything be mounted inside it.
    """
    require_unused(place, "nothing can be changed under it", lower=True)
    inside = place.real.rstrip("/") + "/"
    for mounted in mount_table():
        if mounted.mountpoint.startswith(inside):
            raise UsageError(
                f"'{place.path}': '{mounted.mountpoint}' is mounted inside it: unmount that, or "
                "name another directory"
            )
    for mount in layer_mounts():
        at_it = mount.point == place.real or any(
            mount.has(one.device, one.number, lower=True) for one in layers
        )
        if mount.device == place.device and at_it:
            raise UsageError(
                f"'{place.path}': is seen through the mount at '{mount.point}': name a directory "
                "that is a copy"
            )
