"""`optimize --warm-start RUN|auto`: what an earlier run learned, written into the configuration of a new one."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from gepa_atlas.config import AtlasConfig, Loaded, WarmStartConfig, load_resolved
from gepa_atlas.configfile import escape
from gepa_atlas.data import load_examples
from gepa_atlas.errors import ConfigError
from gepa_atlas.memory.config import MemoryConfig
from gepa_atlas.propose.registry import DEFAULT, WITH_MODEL

RECALL = "recall"


def warmed(loaded: Loaded, given: str) -> Loaded:
    """The configuration with `warm_start`, and with the operator `recall` and what it may recall. A run that exists keeps what it was
    started with, so that it can be resumed after the memory has grown."""
    if loaded.config.warm_start is not None:
        raise ConfigError("--warm-start: the configuration has warm_start already; leave one of the two out")
    if (loaded.run_dir / "run.db").exists():
        before = load_resolved(loaded.run_dir).config
        if before.warm_start is None:
            raise ConfigError(f"--warm-start: the run in {loaded.run_dir} was started without; resume it without, or choose --run-dir")
        return _changed(loaded, before.warm_start, before.operator_options.get(RECALL))
    start, options = _found(loaded, given)
    return _changed(loaded, start, options)


def _found(loaded: Loaded, given: str) -> tuple[WarmStartConfig, dict[str, Any] | None]:
    from gepa_atlas.cli.views import find_run
    from gepa_atlas.memory.ingest import ingest
    from gepa_atlas.memory.store import Memory
    from gepa_atlas.memory.warm import warm_start

    dataset = load_examples(loaded.config.data, loaded.base_dir)
    place = loaded.config.memory or MemoryConfig()
    directory = None if given == "auto" else find_run(given)
    with Memory.open(place.url, redact=place.redact, create=directory is not None) as memory:
        run_id = ingest(memory, directory).run_id if directory is not None else None
        start = warm_start(memory, (*dataset.train, *dataset.val, *dataset.test), run_id)
    recalled = {"items": list(start.items), "harmful": list(start.harmful)} if start.items or start.harmful else None
    block = WarmStartConfig(
        runs=start.runs,
        operations=start.operations,
        similarity=round(start.similarity, 6),
        seeds=tuple(seed.to_json() for seed in start.seeds),
        asked=start.asked,
        searched=start.searched,
    )
    return block, recalled


def _changed(loaded: Loaded, start: WarmStartConfig, recalled: dict[str, Any] | None) -> Loaded:
    config: AtlasConfig = loaded.config
    update: dict[str, Any] = {"warm_start": start}
    if recalled is not None:
        names = config.operators or (WITH_MODEL if config.reflection_lm else DEFAULT)
        update["operators"] = (*(name for name in names if name != RECALL), RECALL)
        update["operator_options"] = {**config.operator_options, RECALL: recalled}
    changed = config.model_copy(update=update)
    written = json.loads(changed.model_dump_json(include=set(update)))
    return replace(loaded, config=changed, resolved={**loaded.resolved, **escape(written)})
