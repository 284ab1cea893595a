"""`gepa-atlas grpo ...`: from the lessons of a run to better weights. Light to import: the work is in `grpo_commands`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="From the best lessons to better weights: export, SFT, GRPO, gate, bundle.", no_args_is_help=True, rich_markup_mode=None
)

RUN_EPILOG = """
Examples:

  gepa-atlas grpo run --config configs/train/cpu_smoke.yaml

  gepa-atlas grpo run --config configs/train/cpu_smoke.yaml --dry-run

  gepa-atlas grpo run --config my.yaml --export-path runs/my/traces.jsonl --until train

  gepa-atlas grpo run --config my.yaml --set grpo.max_steps=100     (again: goes on where it was; finished stages are skipped)

Exit codes: 0 done; 2 wrong input; 3 the gate refused, or the directory is in use; 4 a guard stopped training; 74 the disk refused a write;
75 the student or the judges are out; 130 interrupted. After 74, 75 and 130 the same command goes on.
"""
LAUNCH_EPILOG = """
Examples:

  gepa-atlas grpo launch --config configs/train/fsdp2.yaml --processes 4

  gepa-atlas grpo launch --config configs/train/server.yaml --vllm-gpus 1 --processes 3

  gepa-atlas grpo launch --config configs/train/server.yaml --vllm-gpus 1 --processes 3 --dry-run     (shows the lines)
"""

Config = Annotated[Path, typer.Option("--config", metavar="FILE", help="The YAML file of the training run.", show_default=False)]
MaybeConfig = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="The YAML file of the training run.")]
Export = Annotated[
    Path | None,
    typer.Option("--export-path", metavar="TRACES", help="traces.jsonl of a run, the run's directory, or an ATLAS session export."),
]
Out = Annotated[Path | None, typer.Option("--output-dir", metavar="DIR", help="Where the run is kept. Default: runs/<name of FILE>-grpo.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key, such as seed=7 or grpo.max_steps=20; repeatable.")
]
Over = Annotated[
    list[Path] | None, typer.Option("--over", metavar="FILE", help="Another YAML file, laid over the configuration; repeatable.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress; the closing lines only.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done: configuration, counts, calls, cost, memory, command lines.")
]
From = Annotated[str | None, typer.Option("--from", metavar="STAGE", help="Begin here; earlier stages must be done and are not looked at.")]
Until = Annotated[str | None, typer.Option("--until", metavar="STAGE", help="End after this stage.")]


@app.callback(help="From the best lessons to better weights: export, SFT, GRPO, gate, bundle.")
def _environment(context: typer.Context) -> None:
    """Secrets of students and judges may stand in `.env` of the current directory."""
    from gepa_atlas.dotenv import load_env_files
    from gepa_atlas.secrets import watch_environment

    load_env_files(Path(f"{context.invoked_subcommand}.yaml"))
    watch_environment()


@app.command("run", epilog=RUN_EPILOG)
def run(
    config: Config,
    export_path: Export = None,
    output_dir: Out = None,
    from_: From = None,
    until: Until = None,
    set_: Set = None,
    over: Over = None,
    dry_run: DryRun = False,
    eval_ratio: Annotated[float | None, typer.Option(help="Share of tasks held out, for traces without splits (ATLAS sessions).")] = None,
    max_samples: Annotated[int | None, typer.Option(help="Tasks at most.")] = None,
    wandb_project: Annotated[str | None, typer.Option(help="Report to this project of Weights & Biases.")] = None,
    wandb_run_name: Annotated[str | None, typer.Option(help="Name of the run there.")] = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> int:
    """Run every stage: export, validate, baseline, sft, train, eval, gate, package. What is finished and unchanged is skipped."""
    from gepa_atlas.cli import grpo_commands as commands

    more = {"handoff.eval_ratio": eval_ratio, "handoff.max_samples": max_samples}
    more |= commands.wandb(wandb_project, wandb_run_name)
    loaded = commands.load(config, export_path, output_dir, set_, more, over)
    if dry_run:
        return commands.dry_run(loaded, as_json=json_)
    return commands.run(loaded, first=from_, until=until, quiet=quiet, as_json=json_)


def _stage(name: str, says: str) -> Callable[..., int]:
    """The command of one stage; earlier stages must be done."""

    def command(
        config: Config, export_path: Export = None, output_dir: Out = None, set_: Set = None, quiet: Quiet = False, json_: Json = False
    ) -> int:
        from gepa_atlas.cli import grpo_commands as commands

        loaded = commands.load(config, export_path, output_dir, set_, commands.enabling(name))
        return commands.run(loaded, first=name, until=name, quiet=quiet, as_json=json_)

    command.__doc__ = says
    epilog = f"Example:\n\n  gepa-atlas grpo {name} --config configs/train/cpu_smoke.yaml\n"
    return app.command(name, epilog=epilog)(command)


for _name, _says in (
    ("export", "Select the best lessons of a run and write the training sets. Test tasks' lessons are never exported."),
    ("validate", "Check the training sets: schema, duplicates, leaks, contamination, token lengths, learnable groups."),
    ("baseline", "Run and judge the student alone on every task: what guidance is measured against."),
    ("sft", "Warm the trainee up on the best guidance."),
    ("preference", "Train on better and worse guidance of the same task (DPO), or on single lessons (KTO)."),
    ("train", "Train with GRPO: the reward is what the guidance was worth to the student."),
    ("distill", "Teach the weights what the evolved prompt says."),
    ("eval", "Measure base and trained weights with seed and evolved prompt on untouched tasks."),
    ("gate", "Decide whether what was trained may go live. Exit code 3 unless it passes."),
    ("package", "Put adapter, prompt, decision and evaluation into a bundle."),
):
    _stage(_name, _says)


@app.command("launch", epilog=LAUNCH_EPILOG)
def launch(
    config: Config,
    processes: Annotated[int, typer.Option("--processes", "--train-gpus", metavar="N", min=1, help="Training processes.")] = 1,
    vllm_gpus: Annotated[int, typer.Option("--vllm-gpus", metavar="S", min=0, help="GPUs of a vllm server; 0: no server.")] = 0,
    cpu: Annotated[bool, typer.Option("--cpu", help="Processes on processors.")] = False,
    export_path: Export = None,
    output_dir: Out = None,
    from_: From = None,
    until: Until = None,
    set_: Set = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    json_: Json = False,
) -> int:
    """`run` in N training processes started by accelerate, with a vllm server on S GPUs of its own when asked for."""
    from gepa_atlas.cli import grpo_commands as commands

    more = commands.launching(processes, vllm_gpus, cpu)
    loaded = commands.load(config, export_path, output_dir, set_, more)
    if dry_run:
        return commands.dry_run(loaded, as_json=json_)
    return commands.run(loaded, first=from_, until=until, quiet=quiet, as_json=json_)


@app.command("status", epilog="Example:\n\n  gepa-atlas grpo status runs/cpu_smoke-grpo\n")
def status(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The output directory of a training run.")], json_: Json = False
) -> int:
    """Show what each stage of a training run has come to, and who is at work on it."""
    from gepa_atlas.cli import grpo_commands as commands

    return commands.status(directory, as_json=json_)


@app.command("doctor", epilog="Example:\n\n  gepa-atlas grpo doctor --config configs/train/cpu_smoke.yaml\n")
def doctor(config: MaybeConfig = None, set_: Set = None, json_: Json = False) -> int:
    """Look at versions, devices and disk; each mismatch comes with the command that mends it. Exit code 2 when there is one."""
    from gepa_atlas.cli import grpo_commands as commands

    return commands.doctor(config, set_, as_json=json_)
