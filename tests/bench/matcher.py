"""What the path matcher costs with many rules: ``python tests/bench/matcher.py [rules]``.

``build``: seconds for constructing. ``miss`` and ``hit``: µs of a step with a name that matches no
rule, or one, each name used once; ``again``: of the same hits while somebody has their states. All
in a directory in which every rule of the family may match. Bytes are those that Python allocates.
"""

from __future__ import annotations

import gc
import sys
import time
import tracemalloc
from collections.abc import Callable

from inopt.policy.paths.match import Matcher, State

# Pattern, directory, name that matches; {} is the number of the rule.
FAMILIES = {
    "anchored": ("/dir{}/**", "", "dir{}"),
    "suffix": ("**/*.ext{}", "some/where", "document.ext{}"),
    "literal": ("name{}", "some/where", "name{}"),
    "deep literal": ("/home/*/project{}/*.log", "home/me", "project{}"),
    "deep glob": ("/home/*/project{}/*.log", "home/me/project77", "{}.log"),
    "prefix": ("prefix{}-*", "some/where", "prefix{}-report.txt"),
    "middle": ("*middle{}*", "some/where", "the-middle{}-report"),
    "class": ("v[0-9]?{}.*", "some/where", "v1a{}.txt"),
}
MIXED = ["anchored", "suffix", "literal", "deep glob", "prefix", "middle"]
REPEATS = 5


def fastest(work: Callable[[], object]) -> float:
    """Seconds of the fastest of some runs."""
    best = float("inf")
    for _ in range(REPEATS):
        begin = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - begin)
    return best


def walk(state: State, path: str) -> State:
    for name in path.split("/"):
        if name:
            state = state.step(name.encode())
    return state


def step_microseconds(directory: State, names: list[bytes]) -> float:
    begin = time.perf_counter()
    for name in names:
        directory.step(name)
    return (time.perf_counter() - begin) / len(names) * 1e6


def allocated(work: Callable[[], object]) -> int:
    """Bytes that what *work* returns takes."""
    gc.collect()
    tracemalloc.start()
    result = work()
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del result
    return size


def measure(family: str, lists: list[list[str]], directory_path: str, hit: str) -> None:
    build = fastest(lambda: Matcher(lists))
    rule_bytes = allocated(lambda: Matcher(lists)) / len(lists)
    directory = walk(Matcher(lists).start, directory_path)
    directory.step(b"warm")
    miss = step_microseconds(directory, [b"unmatched-%06d.dat" % n for n in range(20_000)])
    hits = [hit.format(number).encode() for number in range(len(lists))]
    first = step_microseconds(directory, hits)
    states: list[State] = []
    size = allocated(lambda: states.extend(map(directory.step, hits))) - sys.getsizeof(states)
    again = step_microseconds(directory, hits)
    created = len(set(states))
    print(
        f"{family:14} {build:8.3f} {miss:8.2f} {first:8.2f} {again:8.2f}"
        f" {rule_bytes:8.0f} {size / created:8.0f} {created:8}"
    )


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    print(f"{count} rules on Python {sys.version.split()[0]}")
    print(
        f"{'family':14} {'build s':>8} {'miss µs':>8} {'hit µs':>8} {'again µs':>8}"
        f" {'B/rule':>8} {'B/state':>8} {'states':>8}"
    )
    for family, (pattern, directory, hit) in FAMILIES.items():
        measure(family, [[pattern.format(number)] for number in range(count)], directory, hit)
    mixed = [[FAMILIES[MIXED[number % len(MIXED)]][0].format(number)] for number in range(count)]
    for family in ("suffix", "literal", "prefix", "middle"):
        _, directory, hit = FAMILIES[family]
        measure(f"mix: {family}", mixed, directory, hit)


if __name__ == "__main__":
    main()
