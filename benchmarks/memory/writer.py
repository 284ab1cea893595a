"""One writer process: python -m benchmarks.memory.writer URL WRITER COUNT"""

from __future__ import annotations

import sys

from benchmarks.memory.lessons import of_writer
from gepa_atlas.memory.store import Memory

if __name__ == "__main__":
    url, writer, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with Memory.open(url) as memory:
        memory.add(of_writer(writer, count))
