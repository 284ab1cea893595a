"""`python -m gepa_atlas.train.worker OUTPUT_DIR STAGE --processes N`: one of the processes that run a stage together.

Every process runs the stage; the first one says how far it is and leaves worker.json: what the stage made, or why it could not.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gepa_atlas.errors import AtlasError, ConfigError
from gepa_atlas.handoff.workspace import Silent, StageResult, Workspace
from gepa_atlas.store.exports import write_json
from gepa_atlas.train.launch import RESULT, SIGN, with_url
from gepa_atlas.train.runner import here, load_resolved
from gepa_atlas.train.stages import BY_NAME
from gepa_atlas.train.surroundings import prepare


class Spoken:
    """Progress as lines on stdout, which the process that launched this one reads."""

    def note(self, text: str) -> None:
        self._say({"note": text})

    def step(self, what: str, done: int, total: int | None) -> None:
        self._say({"what": what, "done": done, "total": total})

    def _say(self, event: dict[str, object]) -> None:
        print(SIGN + json.dumps(event), flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="gepa_atlas.train.worker")
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("stage", choices=sorted(name for name, stage in BY_NAME.items() if stage.launched))
    parser.add_argument("--processes", type=int, required=True)
    parser.add_argument("--vllm-url")
    given = parser.parse_args(arguments)
    loaded = load_resolved(given.output_dir)
    prepare(loaded.config, loaded.base_dir)
    accelerate: Any = importlib.import_module("accelerate")
    state: Any = accelerate.PartialState(cpu=loaded.config.launch.cpu)
    config = with_url(loaded.config, given.vllm_url)
    progress = Spoken() if state.is_main_process else Silent()
    work = Workspace(given.output_dir, given.stage, config.seed, loaded.base_dir, progress)
    try:
        if state.num_processes != given.processes:
            raise ConfigError(
                f"launch.processes: {given.processes} processes were asked for and {state.num_processes} started; "
                "check that as many devices are visible, or set launch.cpu: true for processors"
            )
        made: StageResult = here(BY_NAME[given.stage], work, config)
    except AtlasError as error:
        if state.is_main_process:
            write_json(work.folder / RESULT, {"error": str(error), "kind": type(error).__name__})
        return error.exit_code
    if state.is_main_process:
        write_json(work.folder / RESULT, {"outputs": list(made.outputs), "figures": dict(made.figures)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
