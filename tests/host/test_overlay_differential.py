"""Random sequences on the kernel's overlayfs and on ours, over equal layers: nothing may differ.

Every answer is compared, then what both show, then what both have stored in their upper layers;
at last each mounts what the other has written. A failure names the seed: see
`support.overlay_sequences`.
"""

from __future__ import annotations

import os
import time
from typing import Final

import pytest
from support.clients import clients
from support.layer_operations import generate
from support.mounting import in_place
from support.overlay_sequences import KINDS, perform
from support.overlay_stage import cross_mounted, staged
from support.sizing import STRESS

pytestmark = pytest.mark.host

TIERS: Final = tuple(os.environ.get("INOPT_TEST_TIERS", "none rw").split())
_FIRST: Final = int(os.environ.get("INOPT_TEST_SEED", "0"))
_ROUNDS: Final = 40 if STRESS else 2
_STEPS: Final = 60


@pytest.mark.timeout(7200 if STRESS else 600)
@pytest.mark.parametrize("lowers", [1, 2, 3])
@pytest.mark.parametrize("tier", TIERS)
def test_random_sequences(host: None, tier: str, lowers: int) -> None:
    with in_place("differential") as place:
        with staged(place, tier, lowers, range(KINDS), _ROUNDS) as stage, clients() as people:
            began = time.monotonic()
            for number in range(KINDS * _ROUNDS):
                seed = _FIRST + 1000 * lowers + number
                problems = perform(stage, people, number % KINDS, generate(seed, _STEPS))
                assert not problems, "\n".join([f"seed {seed}, {lowers} lowers:", *problems])
            print(f"{KINDS * _ROUNDS} sequences in {time.monotonic() - began:.1f} s")
        found = cross_mounted(stage)
        assert not found, "\n".join(found[:40])
