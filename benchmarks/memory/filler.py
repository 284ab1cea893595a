"""Part of a filled store: python -m benchmarks.memory.filler URL FIRST END"""

from __future__ import annotations

import sys

from benchmarks.memory.lessons import trace
from gepa_atlas.memory.store import Memory

if __name__ == "__main__":
    url, first, end = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with Memory.open(url) as memory:
        memory.add(trace(f"r{number // 5000}", number) for number in range(first, end))
