from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def memory_dir() -> Iterator[Path]:
    """A directory in memory where there is one: SIGKILL and torn files do not know the difference, and commits are quick."""
    root = tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    yield Path(root)
    shutil.rmtree(root)
