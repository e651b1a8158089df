"""What a kernel can do, as a value, and which dialect follows from it."""

from __future__ import annotations

from typing import Final

import msgspec

from inopt.exceptions import UsageError
from inopt.kernel.dialects import BY_NAME, KNOWN, PLAIN, Dialect, Plain, Tier
from inopt.ops import OpsMask
from inopt.wire.uapi import InitFlag

_SEE_DOCTOR: Final = "see 'inopt doctor'"


class Abilities(msgspec.Struct, frozen=True):
    """What the running kernel was found to do when it was asked.

    ``dialect`` is the best one that it speaks by itself (``none`` for none), ``accepts`` what it
    takes in an ops_mask. ``bypass_error`` is 0 if backing files can be registered, else the errno
    that says why not (``EPERM``: CAP_SYS_ADMIN is missing; ``ENOTTY``: the kernel does not know
    how).
    """

    major: int
    minor: int
    flags: int
    bypass_error: int
    dialect: str = PLAIN.name
    accepts: OpsMask = OpsMask()

    @property
    def can_bypass(self) -> bool:
        """Whether the rw tier works here, if not more."""
        return self.bypass_error == 0

    @property
    def tier(self) -> Tier:
        """The best tier that works here."""
        kind = BY_NAME.get(self.dialect)
        return Tier.NONE if kind is None or not self.can_bypass else kind.tier

    @property
    def lacks_privilege(self) -> bool:
        """Whether the kernel knows how to bypass, and only does not let this process."""
        return self.bypass_error != 0 and any(
            kind.needs_privilege and kind.missing(self.flags) is None for kind in KNOWN
        )

    @property
    def only_by_name(self) -> list[str]:
        """The dialects that the kernel may speak, but that are taken only when they are named."""
        return [
            kind.name for kind in KNOWN if kind.by_name_only and kind.missing(self.flags) is None
        ]

    def flag_names(self) -> list[str]:
        """The INIT flags offered, by their names in linux/fuse.h; unknown ones as bit numbers."""
        names = []
        for bit in range(64):
            if self.flags >> bit & 1:
                try:
                    names.append(InitFlag(1 << bit).name or f"bit {bit}")
                except ValueError:
                    names.append(f"bit {bit}")
        return names


def candidates(offered: int) -> list[type[Plain]]:
    """The dialects that a kernel which offers these INIT flags may speak by itself, best first."""
    return [kind for kind in KNOWN if not kind.by_name_only and kind.missing(offered) is None]


def needs_probe(offered: int, wanted: Tier | None, abi: str | None) -> bool:
    """Whether these INIT flags leave open what there is to choose for *wanted* or *abi*."""
    if wanted is Tier.NONE:
        return False
    return any(
        kind.proved_by_probe and kind.missing(offered) is None
        for kind in (KNOWN if abi is None else [BY_NAME[abi]] if abi in BY_NAME else [])
        if wanted is None or kind.tier is wanted
    )


def choose_dialect(
    offered: int,
    wanted: Tier | None,
    *,
    privileged: bool,
    abi: str | None = None,
    proof: Abilities | None = None,
) -> Dialect:
    """The dialect for the INIT flags that a kernel offers: the best one, or the one named *abi*.

    *wanted* is the tier it must give, None for the best there is; *privileged*, whether the daemon
    has CAP_SYS_ADMIN in the initial user namespace. *proof* is what a probe of this kernel has
    found: without it, only such dialects are chosen that flags alone tell. *abi* is in `BY_NAME`.
    Raises `UsageError` for a tier or a dialect that is lacking.
    """
    if wanted is Tier.NONE:
        return PLAIN
    if abi is not None:
        return _named(abi, offered, wanted, privileged=privileged, proof=proof)
    reasons = []
    for kind in KNOWN:
        if kind.by_name_only or (wanted is not None and kind.tier is not wanted):
            continue
        reason = _reason_against(kind, offered, proof, privileged=privileged)
        if reason is None:
            return _made(kind, proof)
        reasons.append(f"{kind.name}: {reason}")
    if wanted is None:
        return PLAIN
    raise UsageError(
        f"tier '{wanted.label}': this kernel does not give it ({'; '.join(reasons)}): "
        f"use --tier auto, {_SEE_DOCTOR}"
    )


def _named(
    abi: str, offered: int, wanted: Tier | None, *, privileged: bool, proof: Abilities | None
) -> Dialect:
    kind = BY_NAME[abi]
    if wanted is not None and kind.tier is not wanted:
        raise UsageError(
            f"--abi {abi}: gives tier '{kind.tier.label}', but '{wanted.label}' is demanded: "
            "leave --tier out, or name another dialect"
        )
    reason = _reason_against(kind, offered, proof, privileged=privileged)
    if reason is not None:
        raise UsageError(f"--abi {abi}: {reason}: leave it out, {_SEE_DOCTOR}")
    return _made(kind, proof)


def _made(kind: type[Plain], proof: Abilities | None) -> Dialect:
    return kind(proof.accepts) if kind.takes_masks and proof is not None else kind()


def _reason_against(
    kind: type[Plain], offered: int, proof: Abilities | None, *, privileged: bool
) -> str | None:
    """Why the kernel does not give a dialect; None if it does."""
    reason = kind.missing(offered)
    if reason is not None:
        return reason
    if kind.needs_privilege and not privileged:
        return "registering backing files needs CAP_SYS_ADMIN in the initial user namespace"
    if kind.proved_by_probe:
        if proof is None:
            return "the kernel could not be asked"
        if proof.dialect != kind.name:
            return f"a probe found this kernel to speak {proof.dialect}"
    return None
