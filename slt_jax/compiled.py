"""Room for compiled programs: a process may hold only so many memory maps, and each program takes a few of them."""

from pathlib import Path

import jax

#: Share of the maps that the kernel allows at which compiled programs are given up: a single large one takes hundreds.
_SHARE = 0.5
_MAPS, _LIMIT = Path("/proc/self/maps"), Path("/proc/sys/vm/max_map_count")


def make_room(maps: Path = _MAPS, limit: Path = _LIMIT) -> bool:
    """Give up all compiled programs if this process is about to run out of memory maps.

    XLA maps every program that it compiles for the CPU into a few pieces of memory of their own, about 1000 for
    one ``llc`` of a new shape, and ``jax.jit`` keeps all of them. Linux allows 65530 maps for a process by default; the
    compilation that needs one more ends the process without a Python error. Whoever measures many problems of many
    shapes calls this in between. What is needed again is compiled again.

    Args:
      maps: A file with a line for each map of the process.
      limit: A file with the number of maps allowed.

    Returns:
      Whether they were given up; never where the two files do not exist, as on other systems.

    Source: the Linux kernel's ``vm.max_map_count``.

    >>> make_room(limit=Path("/nowhere"))
    False
    """
    if not (maps.exists() and limit.exists()):
        return False
    with maps.open("rb") as lines:
        used = sum(1 for _ in lines)
    if used < _SHARE * int(limit.read_text()):
        return False
    jax.clear_caches()
    return True
