"""CPUs that this process may use: a container, or who started it, may keep others from it."""

import os


def usable() -> frozenset[int]:
    """Their numbers; where the system does not tell, those of all."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))
