"""How much memory a training can still take: of the machine, of the container that it runs in, of
the GPU.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from tensor.memory.devices import array_module

PROCESS, MACHINE, GROUPS = Path("/proc/self/cgroup"), Path("/proc/meminfo"), Path("/sys/fs/cgroup")
VERSION_1 = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
VERSION_2 = "memory.max", "memory.current", "inactive_file"


def free(device: str) -> int | None:
    """Bytes that are free on a device; None where nobody can tell. Raises DeviceError for a device
    that is not there.
    """
    if device == "cpu":
        return min((free for free in (_machine(), *_groups()) if free is not None), default=None)
    module = array_module(device)
    with module.cuda.Device(int(device[5:] or 0)):
        return int(
            module.cuda.runtime.memGetInfo()[0] + module.get_default_memory_pool().free_bytes()
        )


def _machine() -> int | None:
    """What Linux says can be had without swapping; elsewhere all the memory that is built in."""
    try:
        found = re.search(r"^MemAvailable: +(\d+) kB$", MACHINE.read_text(), re.MULTILINE)
        return int(found[1]) << 10 if found else None
    except OSError:
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None


def _groups() -> Iterator[int | None]:
    """The free bytes in each of Linux's control groups that this process is in. A container may see
    its own group as the outermost.
    """
    try:
        lines = PROCESS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0":
            root, names = GROUPS, VERSION_2
        elif "memory" in controllers.split(","):
            root, names = GROUPS / "memory", VERSION_1
        else:
            continue
        group = root / path[1:]
        for folder in (group, *group.parents):
            yield _left(folder, *names)


def _left(group: Path, limit: str, used: str, cached: str) -> int | None:
    """limit - used + cached: what a group keeps of files that nobody uses is given up for whoever
    needs memory.
    """
    try:
        # "max" is no number: there is no limit
        most, now = (int((group / name).read_text()) for name in (limit, used))
        facts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    return most - now + int(facts.get(cached, 0))
