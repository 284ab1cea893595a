"""The process of one tracker: `python -m gepa_atlas.observe.worker NAME OPTIONS`, told by lines of JSON. See `observe.tracker`."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol


class Tracked(Protocol):
    """A run in a tracker. Settings and figures are flat; `step` is the number of rollouts."""

    def log(self, figures: Mapping[str, float], step: int) -> None: ...

    def end(self, row: Mapping[str, Any]) -> None: ...


class InMLflow:
    """A run in MLflow's store, found again by its run id when it is resumed."""

    def __init__(self, options: Mapping[str, Any], row: Mapping[str, Any]) -> None:
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        self._client = client = MlflowClient(options["tracking_uri"])
        known = client.get_experiment_by_name(options["experiment"])
        experiment = known.experiment_id if known else client.create_experiment(options["experiment"])
        query = f"tags.`gepa_atlas.run_id` = '{row['run_id']}'"
        found = client.search_runs([experiment], query, max_results=1) if row["resumed"] else []
        if found:
            self._id = found[0].info.run_id
            client.update_run(self._id, status="RUNNING")
            return
        made = client.create_run(experiment, tags={"gepa_atlas.run_id": row["run_id"]}, run_name=row["name"])
        self._id = made.info.run_id
        client.log_batch(self._id, params=[Param(name, str(value)[:6000]) for name, value in row["settings"].items()])

    def log(self, figures: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self._id, metrics=[Metric(name, value, now, step) for name, value in figures.items()])

    def end(self, row: Mapping[str, Any]) -> None:
        self.log(row["figures"], int(row["figures"].get("rollouts", 0)))
        for name in ("ruling", "reason"):
            self._client.set_tag(self._id, f"gepa_atlas.{name}", row[name])
        self._client.set_terminated(self._id, "FINISHED" if row["result"] == "finished" else "KILLED")


class InWandb:
    """A run of W&B. Its own looks at the machine, the program and the console are off."""

    def __init__(self, options: Mapping[str, Any], row: Mapping[str, Any]) -> None:
        import wandb

        off = {"x_disable_stats": True, "x_disable_meta": True, "x_disable_machine_info": True, "disable_git": True, "disable_code": True}
        settings = wandb.Settings(console="off", silent=True, **off)
        resume: Any = "allow" if options["mode"] == "online" else None  # offline, each process of a run has files of its own
        os.makedirs(options["directory"], exist_ok=True)
        self._run = wandb.init(
            project=options["project"],
            mode=options["mode"],
            dir=options["directory"],
            id=row["run_id"],
            name=row["name"],
            config=dict(row["settings"]),
            resume=resume,
            settings=settings,
        )

    def log(self, figures: Mapping[str, float], step: int) -> None:
        self._run.log({**figures, "rollouts": step})

    def end(self, row: Mapping[str, Any]) -> None:
        self._run.log(dict(row["figures"]))
        self._run.summary.update({"ruling": row["ruling"], "stop_reason": row["reason"], **row["figures"]})
        self._run.finish(exit_code=0 if row["result"] == "finished" else 1)


class InTrackio:
    """A run of a local Trackio."""

    def __init__(self, options: Mapping[str, Any], row: Mapping[str, Any]) -> None:
        if options["directory"] is not None:
            os.environ["TRACKIO_DIR"] = options["directory"]  # read when it is imported
        import trackio

        self._run = trackio.init(
            project=options["project"],
            name=f"{row['name']}-{row['run_id']}",
            config=dict(row["settings"]),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def log(self, figures: Mapping[str, float], step: int) -> None:
        self._run.log(dict(figures), step=step)

    def end(self, row: Mapping[str, Any]) -> None:
        told = {"ruling": row["ruling"], "stop_reason": row["reason"]}
        self._run.log({**row["figures"], **told}, step=int(row["figures"].get("rollouts", 0)) + 1)
        self._run.finish()


_TRACKERS: dict[str, Any] = {"mlflow": InMLflow, "wandb": InWandb, "trackio": InTrackio}


def main(name: str, options: str) -> int:
    tracked: Tracked | None = None
    try:
        for line in sys.stdin:
            row = json.loads(line)
            if row["what"] == "begin":
                tracked = _TRACKERS[name](json.loads(options), row)
            elif tracked is not None and row["what"] == "log":
                tracked.log(row["figures"], row["step"])
            elif tracked is not None:
                tracked.end(row)
                tracked = None
        if tracked is not None:  # the run was killed
            tracked.end({"result": "stopped", "ruling": "", "reason": "its process ended without a word", "figures": {}})
    except Exception as error:  # the border to the tracker's library, which raises what its network and its files raise
        from gepa_atlas.errors import said
        from gepa_atlas.secrets import scrub, watch_environment

        watch_environment()
        print(f"\n{scrub(said(error))}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
