"""What `gepa-atlas rim ...` does: plain functions from arguments to an exit code. They print for people; `json_out` is for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gepa_atlas.budget import Limits
from gepa_atlas.errors import ConfigError, DataError
from gepa_atlas.rim.bank import json_rows, load_bank
from gepa_atlas.rim.config import RimConfig
from gepa_atlas.rim.profile import Profile, load_profile

Say = Callable[[str], None]
_NO_LIMITS = Limits()


def score(
    prompt: str | None = None,
    response: str | None = None,
    *,
    config: Path,
    answer: str | None = None,
    dataset: Path | None = None,
    json_out: Path | None = None,
    limits: Limits = _NO_LIMITS,
    say: Say = print,
) -> int:
    """One interaction, or every row of a JSON lines file (`prompt` or `question`, `response` or `output`, `answer`?, `context`?, `spec`?).

    1 when any could not be scored.
    """
    from gepa_atlas.rim.reward import RIMReward

    if (dataset is None) == (prompt is None or response is None):
        raise ConfigError("rim score takes --prompt and --response, or --dataset FILE; give one of the two")
    rows = [{"prompt": prompt, "response": response, "answer": answer}]
    if dataset is not None:
        rows = [_interaction(dataset, number, row) for number, row in json_rows(dataset)]
        if not rows:
            raise DataError(f"{dataset}: the file has no rows; a row has prompt and response")
    writable(json_out)
    with RIMReward(config_path=config, limits=limits) as rim:
        given: dict[str, Any] = {"ground_truths": [r["answer"] for r in rows], "contexts": [r.get("context") for r in rows]}
        given["specs"] = [r.get("spec") for r in rows]
        scores, infos = rim([r["prompt"] for r in rows], [r["response"] for r in rows], True, **given)
    lines = [{"score": value, **info} for value, info in zip(scores, infos, strict=True)]
    if json_out is not None:
        write_json(json_out, lines[0] if dataset is None else lines)
    for line in lines[:20]:
        reason = f" ({line['missing']['kind']}: {line['missing']['reason']})" if line["missing"] else ""
        say(f"reward {'none' if line['score'] is None else format(line['score'], '.3f')}{reason}")
        for name, value in line["rewards"].items():
            say(f"  {name}: {'none' if value is None else format(value, '.3f')}  {line['explanations'][name][:200]}")
    known = [value for value in scores if value is not None]
    if len(lines) > 1:
        mean = f"{sum(known) / len(known):.3f}" if known else "none"
        say(f"{len(known)} of {len(lines)} scored, mean reward {mean}")
    return 0 if len(known) == len(lines) else 1


def _interaction(path: Path, number: int, row: dict[str, Any]) -> dict[str, Any]:
    prompt, response = row.get("prompt", row.get("question")), row.get("response", row.get("output"))
    if not isinstance(prompt, str) or not isinstance(response, str):
        raise DataError(f"{path}:{number}: a row has `prompt` (or `question`) and `response` (or `output`) texts; correct it")
    more = {name: row[name] for name in ("context", "spec") if name in row}
    return {"prompt": prompt, "response": response, "answer": row.get("answer", row.get("ground_truth"))} | more


def calibrate(
    *,
    bank: Path | None = None,
    labels: Path | None = None,
    pairs: Path | None = None,
    config: Path | None = None,
    draws: int = 2,
    limits: Limits = _NO_LIMITS,
    out: Path,
    say: Say = print,
) -> int:
    """Fit a profile on a bank of best-of-several judgments, on labelled outputs, on pairs, or on several of these."""
    if bank is None and labels is None and pairs is None:
        raise ConfigError("rim calibrate needs something labelled: --bank FILE, --labels FILE or --pairs FILE")
    writable(out)
    profile = Profile(source={"row_digests": []})
    if bank is not None:
        from gepa_atlas.rim.calibrate import calibrate_bank

        profile = calibrate_bank(load_bank(bank), judges=seated(config))
    figures, points, digests = dict(profile.figures), dict(profile.points), list(profile.source.get("row_digests", ()))
    fitted: dict[str, Any] = {}
    if labels is not None:
        points["labels"], figures["labels"], more = _labels(labels, config, draws, limits)
        digests += more
    if pairs is not None:
        from gepa_atlas.rim.pairs import calibrate_pairs, load_pairs

        fitted, figures["pairs"] = calibrate_pairs(load_pairs(pairs))
    profile = Profile({**profile.source, "row_digests": digests}, profile.contests, points, figures, fitted)
    write_json(out, profile.to_json())
    for name, part in figures.items():
        say(f"{name}:")
        for key, value in part.items():
            say(f"  {key}: {value}")
    say(f"profile {profile.identity} written to {out} (figures are cross-validated)")
    return 0


def _labels(path: Path, config: Path | None, draws: int, limits: Limits) -> tuple[Any, dict[str, Any], list[str]]:
    from gepa_atlas.rim.calibrate import fit_points
    from gepa_atlas.rim.labels import load_labels

    read = load_labels(path, _calibrating(config, draws, limits) if config else None)
    points, figures = fit_points(read.judges, read.scores, read.label, lengths=read.lengths)
    return points, figures, list(read.digests)


def bench(
    *,
    bank: Path | None = None,
    pairs: Path | None = None,
    profile: Path | None = None,
    config: Path | None = None,
    max_calls_per_response: float | None = None,
    json_out: Path | None = None,
    say: Say = print,
) -> int:
    """A panel on recorded judgments, with ATLAS's rule beside it. Fits nothing."""
    if (bank is None) == (pairs is None):
        raise ConfigError("rim bench takes --bank FILE (best of several) or --pairs FILE; give one of the two")
    fitted = load_profile(profile) if profile else None
    if bank is not None:
        from gepa_atlas.rim.bench import bench as run

        result = run(load_bank(bank), fitted, most_calls=max_calls_per_response, judges=seated(config))
    else:
        from gepa_atlas.rim.pairs import bench_pairs, load_pairs

        if max_calls_per_response is not None:
            raise ConfigError("--max-calls-per-response belongs to --bank; recorded pairs cost two calls a judge")
        if fitted is not None and not fitted.pairs:
            raise ConfigError(f"{profile}: the profile holds nothing on pairs; make one with `gepa-atlas rim calibrate --pairs FILE`")
        assert pairs is not None
        result = bench_pairs(load_pairs(pairs), fitted.pairs if fitted else None)
    if json_out is not None:
        write_json(json_out, result)
    if not result["meta"]["held_out"]:
        say(f"note: {result['meta']['rows_the_profile_was_fitted_on']} of these rows were used to fit the profile; the figures flatter it")
    for line in _table(result["rows"]):
        say(line)
    return 0


def audit(
    *,
    config: Path,
    dataset: Path,
    wrong: str = "I am not sure.",
    slack: float = 0.1,
    limit: int = 20,
    json_out: Path | None = None,
    limits: Limits = _NO_LIMITS,
    say: Say = print,
) -> int:
    """Canaries against the configured panel, on examples (JSON lines with `question` and `answer`). 1 when one collects reward."""
    import asyncio

    from gepa_atlas.rim.audit import audit as run
    from gepa_atlas.types import Example

    examples = []
    for number, row in json_rows(dataset):
        if not isinstance(row.get("question"), str):
            raise DataError(f"{dataset}:{number}: an example has a `question`; correct the row")
        gold = row.get("answer")
        answers = tuple(map(str, gold)) if isinstance(gold, list) else (() if gold is None else (str(gold),))
        examples.append(Example(str(row.get("id", number)), row["question"], answers))
    if not examples:
        raise DataError(f"{dataset}: the file has no rows; an audit of nothing passes nothing")
    writable(json_out)
    panel = _built(_read(config), config, limits)
    panel.check(examples[:limit])
    found = asyncio.run(run(panel, examples[:limit], wrong=wrong, slack=slack))
    if json_out is not None:
        write_json(json_out, found)
    for kind, share in found["caught"].items():
        say(f"{kind}: {share:.0%} caught")
    for miss in found["missed"][:10]:
        say(f"  missed: {miss['canary']} on {miss['example_id']}: {miss['score']:.2f} for {miss['text']!r}")
    if found["blind_examples"]:
        say(f"on {found['blind_examples']} of {found['examples']} examples the panel does not put the right answer above a wrong one")
    say("passed" if found["passed"] else "failed")
    return 0 if found["passed"] else 1


def seated(config: Path | None) -> Sequence[str] | None:
    """Names of the recorded judges that a configuration seats; None without a configuration."""
    if config is None:
        return None
    from gepa_atlas.rim.judges.recorded import RecordedSettings

    read = _read(config)
    judges = (*read.judges, *(read.escalate.judges if read.escalate else ()))
    names = [j.judge for j in judges if isinstance(j, RecordedSettings)]
    if not names:
        raise ConfigError(f"{config}: a bank holds recorded judges; seat some with {{type: recorded, table: FILE, judge: NAME}}")
    return names


def _calibrating(config: Path, draws: int, limits: Limits) -> Any:
    """The configured judges, all of them on one tier, so that each says something of every row; models are drawn `draws` times or more."""
    from gepa_atlas.rim.judges.llm import LlmSettings

    read = _read(config)
    judges = (*read.judges, *(read.escalate.judges if read.escalate else ()))
    more = tuple(j.model_copy(update={"draws": max(draws, j.draws)}) if isinstance(j, LlmSettings) else j for j in judges)
    alone = {"judges": more, "escalate": None, "profile": None, "watch": None, "compare": None, "bounds": None}
    return _built(read.model_copy(update=alone), config, limits)


def _read(config: Path) -> RimConfig:
    from gepa_atlas.rim.reward import read_rim

    return read_rim(config)


def _built(read: RimConfig, config: Path, limits: Limits) -> Any:
    from gepa_atlas.calls import Calls, MemoryTape
    from gepa_atlas.rim.panel import build_panel
    from gepa_atlas.rim.reward import default_model

    calls = Calls(MemoryTape(), concurrency=read.concurrency, limits=limits)
    return build_panel(read, model=lambda spec: calls.model(default_model(spec), "judge"), base_dir=config.resolve().parent)


def _table(rows: list[dict[str, Any]]) -> list[str]:
    """Aligned columns of the keys that matter, with a dash where there is nothing."""
    keys = [k for k in rows[0] if k not in ("judges", "most_calls")]
    cells = [keys] + [["-" if r.get(k) is None else f"{r[k]:.3f}" if isinstance(r[k], float) else str(r[k]) for k in keys] for r in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(keys))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def writable(path: Path | None) -> None:
    """Refuse a path that cannot be written before anything is paid for."""
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise ConfigError(
            f"{path}: cannot be written ({'a directory' if path.is_dir() else 'its folder does not exist'}); choose another path"
        )


def write_json(path: Path, value: Any) -> None:
    from gepa_atlas.store.exports import atomic_write

    atomic_write(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
