"""`grpo doctor`: whether the versions, devices and disk here can run a configuration, each mismatch with the command that mends it."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shutil
import sys
from dataclasses import dataclass
from typing import Any, Literal

from gepa_atlas.errors import AtlasError
from gepa_atlas.train.config import LoadedTrain
from gepa_atlas.train.fields import check_fields
from gepa_atlas.train.size import shown, size_of
from gepa_atlas.train.versions import installed

State = Literal["ok", "note", "bad"]
TRAIN = "pip install 'gepa-atlas[train]'"
VLLM = "pip install 'gepa-atlas[vllm]'"

# package -> (lowest, first version that is too high or None, command). transformers 5.2 brought what trl 1.16's environments need.
WANTED: dict[str, tuple[str, str | None, str]] = {
    "torch": ("2.13.0", "2.14", "pip install 'torch==2.13.0'"),
    "trl": ("1.16", "1.17", "pip install 'trl>=1.16,<1.17'"),
    "transformers": ("5.2", "6", "pip install 'transformers>=5.20,<6'"),
    "peft": ("0.13", None, TRAIN),
    "accelerate": ("1.10", None, TRAIN),
    "datasets": ("4.0", None, TRAIN),
    "pyarrow": ("18", None, TRAIN),
}
VLLM_RANGE = ("0.22", "0.32")  # what trl 1.16 speaks to


@dataclass(frozen=True)
class Row:
    """One thing that was looked at. `fix` is the command or the key that mends it."""

    name: str
    state: State
    said: str
    fix: str = ""

    def to_json(self) -> dict[str, str]:
        return {"name": self.name, "state": self.state, "said": self.said, "fix": self.fix}


def examine(loaded: LoadedTrain | None = None) -> list[Row]:
    """Rows for this machine, and for a configuration where one is given. Imports torch to look for devices."""
    rows: list[Row | None] = [_python(), *(_package(name, *wanted) for name, wanted in WANTED.items()), _vllm(loaded), _devices(loaded)]
    if loaded is not None:
        rows += [_deepspeed(loaded), _trackers(loaded), _disk(loaded), _fields(loaded)]
    return [row for row in rows if row is not None]


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: 2.13.0+cpu is (2, 13, 0)."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def within(version: str, low: str, below: str | None) -> bool:
    return numbers(low) <= numbers(version) and (below is None or numbers(version) < numbers(below))


def _python() -> Row:
    version = ".".join(map(str, sys.version_info[:3]))
    return Row("python", "ok" if sys.version_info >= (3, 11) else "bad", version, "install Python 3.11 or later")


def _package(name: str, low: str, below: str | None, command: str) -> Row:
    version = installed(name)
    wanted = f">= {low}" + (f", < {below}" if below else "")
    if version is None:
        return Row(name, "bad", f"not installed (wanted {wanted})", command)
    if not within(version, low, below):
        return Row(name, "bad", f"{version} (wanted {wanted})", command)
    return Row(name, "ok", version)


def _vllm(loaded: LoadedTrain | None) -> Row:
    version, (low, below) = installed("vllm"), VLLM_RANGE
    needed = loaded is not None and loaded.config.vllm.mode != "off" and loaded.config.vllm.url is None
    if version is None:
        if needed:
            return Row("vllm", "bad", "not installed, and vllm.mode asks for it", f"{VLLM}, or set vllm.mode: off")
        return Row("vllm", "ok", "not installed; this run does not need it" if loaded else "not installed; needed for vllm.mode only")
    if within(version, low, below):
        return Row("vllm", "ok", version)
    return Row("vllm", "bad" if needed or loaded is None else "note", f"{version}: trl 1.16 speaks to 0.22 to 0.31", VLLM)


def _devices(loaded: LoadedTrain | None) -> Row:
    if importlib.util.find_spec("torch") is None:
        return Row("devices", "bad", "unknown without torch", TRAIN)
    torch: Any = importlib.import_module("torch")
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    said = f"{seen} GPUs, CUDA {torch.version.cuda}" if seen else f"no GPU is visible (torch {torch.__version__})"
    if loaded is None:
        return Row("devices", "ok", said)
    config = loaded.config
    own = config.vllm.mode == "server" and config.vllm.url is None
    wanted = 0 if config.launch.cpu else (config.launch.processes if config.launch.backend == "accelerate" else 0)
    wanted = max(wanted + (config.vllm.gpus if own else 0), 1 if config.vllm.mode != "off" and config.vllm.url is None else 0)
    if wanted <= seen:
        return Row("devices", "ok", f"{said}; this run wants {wanted}")
    built_without = "" if torch.version.cuda else "; this torch was built without CUDA: pip install 'torch==2.13.0' from its CUDA index"
    return Row("devices", "bad", f"{said}; this run wants {wanted}", f"run on {wanted} GPUs, or lower launch.processes{built_without}")


def _deepspeed(loaded: LoadedTrain) -> Row | None:
    from gepa_atlas.train.launch import accelerate_kind

    if accelerate_kind(loaded) != "DEEPSPEED":
        return None
    version = installed("deepspeed")
    if version is not None and within(version, "0.18.6", None):
        return Row("deepspeed", "ok", version)
    return Row("deepspeed", "bad", f"{version or 'not installed'} (wanted >= 0.18.6)", "pip install 'gepa-atlas[deepspeed]'")


def _trackers(loaded: LoadedTrain) -> Row | None:
    missing = [name for name in loaded.config.tracking.report_to if installed(name) is None]
    if not missing:
        return None
    return Row("tracking", "bad", f"{', '.join(missing)}: not installed", f"pip install {' '.join(missing)}, or change tracking.report_to")


def _disk(loaded: LoadedTrain) -> Row:
    size = size_of(loaded.config, loaded.base_dir)
    directory = loaded.output_dir.absolute()
    free = shutil.disk_usage(next(p for p in (directory, *directory.parents) if p.exists())).free
    said = f"{shown(free)} free, about {shown(size.disk)} needed"
    return Row("disk", "ok" if free >= size.disk else "bad", said, "free some, or choose another output_dir")


def _fields(loaded: LoadedTrain) -> Row:
    try:
        check_fields(loaded.config)
    except AtlasError as error:
        return Row("trl fields", "bad", str(error), "correct the key")
    return Row("trl fields", "ok", "every name below trl: is a field of its trainer")
