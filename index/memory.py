"""How much memory this machine has to give."""

import os
from pathlib import Path


def available_memory() -> int:
    """Return the bytes that can be taken without swapping; all memory, where this system does not tell."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # no Linux
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
