"""What this machine lets the process have."""

from __future__ import annotations

import math
import os
from pathlib import Path


def cores(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """Cores that this process may use: fewer than the machine's, by taskset or in a container.

    A share of the processor's time, as `docker --cpus` and systemd's CPUQuota set it, counts as so
    many cores, rounded up.

    Args:
        groups: where Linux shows its control groups.
        own: where it says in which of them this process is.
    """
    if hasattr(os, "sched_getaffinity"):
        found = len(os.sched_getaffinity(0))
    else:
        found = os.cpu_count() or 1
    return max(1, math.ceil(min(found, _share(groups, own))))


def _share(groups: Path, own: Path) -> float:
    """The processor's time that the control groups allow, in cores; infinite where they do not say.

    Each group is bound by those above it too. In a container, a group may be named by its place on
    the host, which is not to be seen; what is seen as the uppermost is the container's then.
    """
    try:
        lines = own.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return math.inf
    least = math.inf
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        group = (groups / "cpu" if controllers else groups) / place.lstrip("/")
        least = min(least, *map(_allowed, (group, *group.parents)))
    return least


def _allowed(group: Path) -> float:
    """What one control group allows by itself."""
    for files in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):  # of version 2, of 1
        try:
            quota, period = " ".join((group / file).read_text() for file in files).split()
            if quota.isdecimal():  # neither "max" nor -1
                return int(quota) / int(period)
        except (OSError, ValueError):  # no such file, or none that Linux writes
            continue
    return math.inf
