"""`python -m benchmarks.overhead`: milliseconds per proposal, growth exponent, peak memory, bytes written over bytes of final state.

Ports answer at once, every child is kept, prompts are 1.5 KB and scores continuous. Each cell is a process of its own. CPU time per
proposal is the mean over the last tenth of the candidates; a system that does not get there in `--limit` seconds is measured where it
is (`reached`). Bytes are measured in a second run with everything written to disk, at no more than `--bytes-candidates` candidates: what
the process passed to write calls, over the run directory as it is in the end. Ours is what `gepa-atlas optimize` leaves, run.db and the
exports; `run_db_ratio` is run.db alone. Every system has one BLAS thread: a second one only waits, and its waiting is processor time.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.fake import SEED, unit, written
from benchmarks.optimizers.gepa_package import gepa_optimize

TRAIN = 100
PADDING = "Mind the details of each case, one after the other. " * 28  # about 1.5 KB


class _Clock:
    """CPU seconds at each number of candidates."""

    def __init__(self, limit: float) -> None:
        self.marks: list[tuple[int, float]] = []
        self.began, self.limit = time.monotonic(), limit

    def mark(self, candidates: int) -> bool:
        """Note that there are so many candidates now; whether time is up."""
        self.marks.append((candidates, time.process_time()))
        return time.monotonic() - self.began > self.limit

    def ms_per_proposal(self) -> float:
        tail = self.marks[-max(2, len(self.marks) // 10) :]
        return 1000 * (tail[-1][1] - tail[0][1]) / max(1, len(tail) - 1)


def _text(n: int) -> str:
    return f"{SEED} Version {n}. {PADDING}"


def _score(n: int, example: str) -> float:
    """Continuous; on train and at the gate a later candidate is a little better, so that every child is kept."""
    return min(1.0, 0.3 * unit(n, example) + 0.0005 * n + 0.2)


def atlas_engine(candidates: int, valset: int, limit: float) -> dict[str, Any]:
    """Ask and tell of the pure engine; making the answers is not on the clock."""
    from gepa_atlas.evolve.engine import Evolution, Plan
    from gepa_atlas.evolve.portfolio import Operator
    from gepa_atlas.types import Attempt, Candidate, Draft, Example, Guidance, Lesson, Outcome, Reward, SlotKind, digest

    train = [f"t{i}" for i in range(TRAIN)]
    val = [f"v{i}" for i in range(valset)]
    examples = {e: Example(e, e, split="train" if e[0] == "t" else "val") for e in train + val}
    empty, zero, guidance = Attempt(""), Reward(0.0), Guidance("")
    seed = Candidate.of({"guidance": _text(0)})
    numbers = {seed.id: 0}
    plan = Plan(width=4, rollouts=None, operators=(Operator("reflect", 4),), plateau=None)
    evolution = Evolution(plan, (seed,), train, val, (), gain=lambda lesson: lesson.after.value)
    clock, cpu, window = _Clock(limit), 0.0, []

    def lessons(candidate: Candidate, cells: Any) -> list[Lesson]:
        n = numbers.setdefault(candidate.id, len(numbers))  # a reader's parent may be what a draw would ship, known to nobody yet
        return [
            Lesson(
                examples[e], candidate.id, s, "playbook", empty, guidance, empty, zero, Reward(_score(n, e)),
                requests=(digest([candidate.id, e], 16),),
            )
            for e, s in cells
        ]  # fmt: skip

    while len(numbers) <= candidates:
        begin = time.process_time()
        while evolution.asked - evolution.told < plan.width and (proposal := evolution.ask()) is not None:
            window.append(proposal)
        cpu += time.process_time() - begin
        proposal = window.pop(0)
        for candidate in proposal.parents:
            numbers.setdefault(candidate.id, len(numbers))
        if proposal.kind is SlotKind.CHILD:
            child = proposal.child or proposal.parents[0].child("reflect", texts={"guidance": _text(len(numbers))})
            numbers.setdefault(child.id, len(numbers))
            read = lessons(proposal.parents[0], [(e, 0) for e in proposal.read])
            outcome = Outcome(Draft(child, "a line"), tuple(read + lessons(child, proposal.gate)))
        else:
            outcome = Outcome(None, tuple(x for c in proposal.parents for x in lessons(c, proposal.gate)))
        begin = time.process_time()
        evolution.tell(proposal, outcome)
        cpu += time.process_time() - begin
        clock.marks.append((len(numbers), cpu))
        if time.monotonic() - clock.began > limit:
            break
    return {"ms_per_proposal": clock.ms_per_proposal(), "reached": len(numbers) - 1, "proposals": len(clock.marks)}


class _InstantAdapter:
    """gepa's adapter on the same scores; a candidate's number is in its text."""

    propose_new_texts = None

    def evaluate(self, batch: list[str], candidate: dict[str, str], capture_traces: bool = False) -> Any:
        from gepa.core.adapter import EvaluationBatch

        n = int(candidate["guidance"].split("Version ")[1].split(".")[0])
        scores = [_score(n, e) if e[0] == "v" else 0.001 * n for e in batch]
        return EvaluationBatch(outputs=[""] * len(batch), scores=scores, trajectories=batch)

    def batch_evaluate(self, items: Any) -> list[Any]:
        return [self.evaluate(batch, candidate, True) for candidate, batch in items]

    def make_reflective_dataset(self, candidate: Any, eval_batch: Any, components_to_update: Any) -> Any:
        return {name: [{"Inputs": q, "Feedback": "wrong"} for q in eval_batch.trajectories] for name in components_to_update}


def gepa_engine(candidates: int, valset: int, limit: float, folder: str | None = None) -> dict[str, Any]:
    """gepa.optimize with everything instant; with `folder`, checkpoints as it writes them."""
    made = 0

    def reflection(prompt: Any) -> str:
        nonlocal made
        made += 1
        return f"```\n{_text(made)}\n```"

    class Quiet:
        def log(self, message: str) -> None:
            pass

    clock = _Clock(limit)
    state: dict[str, bool] = {"stop": False}

    class Watch:
        def on_iteration_end(self, event: Any) -> None:
            state["stop"] = clock.mark(made) or made >= candidates

    gepa_optimize()(
        seed_candidate={"guidance": _text(0)}, trainset=[f"t{i}" for i in range(TRAIN)], valset=[f"v{i}" for i in range(valset)],
        adapter=_InstantAdapter(), reflection_lm=reflection, reflection_minibatch_size=3, logger=Quiet(), seed=0, run_dir=folder,
        stop_callbacks=lambda _: state["stop"], callbacks=[Watch()],
    )  # fmt: skip
    return {"ms_per_proposal": clock.ms_per_proposal(), "reached": made, "proposals": len(clock.marks)}


def atlas_bytes(candidates: int, valset: int) -> dict[str, Any]:
    """A whole run of ours with its ledger; about fifteen rollouts a candidate."""
    from benchmarks.fake import Task01, Work, atlas_experiment
    from gepa_atlas.cli.session import PROMPTS, TRACES, to_record
    from gepa_atlas.loop import run
    from gepa_atlas.report.prompts import optimized_prompts
    from gepa_atlas.report.traces import trace_rows
    from gepa_atlas.store.exports import write_json, write_jsonl

    experiment = atlas_experiment(
        students=Work(0.0), reflections=Work(0.0), concurrency=16, rollouts=15 * candidates, train=TRAIN, val=valset,
        task=Task01(good=0.6, step=0.01),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        before = written()
        result = run(experiment, Path(folder) / "run")
        ledger = written() - before
        record = to_record(result, ())
        write_json(result.directory / PROMPTS, optimized_prompts(record))
        write_jsonl(result.directory / TRACES, trace_rows(result.lessons))
        alone = round(ledger / (result.directory / "run.db").stat().st_size, 2) if ledger else None
        return _ratio(written() - before, Path(folder)) | {"run_db_ratio": alone}


def gepa_bytes(candidates: int, valset: int, limit: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        before = written()
        reached = gepa_engine(candidates, valset, limit, folder)["reached"]
        return _ratio(written() - before, Path(folder)) | {"bytes_candidates": reached}


def _ratio(total: int, folder: Path) -> dict[str, Any]:
    final = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    return {"bytes_written": total, "bytes_final": final, "bytes_written_ratio": round(total / final, 2) if final and total else None}


def cell(system: str, what: str, candidates: int, valset: int, limit: float) -> dict[str, Any]:
    """One measurement, in the process it is called in."""
    logging.disable(logging.WARNING)
    if what == "bytes":
        made = atlas_bytes(candidates, valset) if system == "atlas" else gepa_bytes(candidates, valset, limit)
        return {"bytes_candidates": candidates} | made
    return (atlas_engine if system == "atlas" else gepa_engine)(candidates, valset, limit) | {
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
    }


def apart(*args: Any) -> dict[str, Any]:
    """The same in a process of its own, so that peak memory is that cell's."""
    code = f"import json; from benchmarks.overhead.__main__ import cell; print('\\n' + json.dumps(cell(*{args!r})))"
    one_thread = os.environ | {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=results.ROOT, env=one_thread)
    if done.returncode:
        raise RuntimeError(f"overhead cell {args} failed: {done.stderr.strip().splitlines()[-1]}")
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def _exponents(rows: list[results.Row]) -> None:
    """Slope of log(ms) over log(candidates reached), by system and valset."""
    for r in rows:
        same = [s for s in rows if s["system"] == r["system"] and s["valset"] == r["valset"]]
        xs, ys = [math.log(s["reached"]) for s in same], [math.log(max(1e-6, s["ms_per_proposal"])) for s in same]
        mx, my = sum(xs) / len(xs), sum(ys) / len(ys)
        spread = sum((x - mx) ** 2 for x in xs)
        slope = sum((x - mx) * (y - my) for x, y in zip(xs, ys, strict=True)) / spread if spread > 1e-9 else None
        r["growth_exponent"] = results.rounded(slope, 3)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__)
    parser.add_argument("--candidates", default="100,400,800")
    parser.add_argument("--valset", default="100,1000")
    parser.add_argument("--systems", default="atlas,gepa")
    parser.add_argument("--limit", type=float, default=90.0, help="seconds a cell may take")
    parser.add_argument("--bytes-candidates", type=int, default=100)
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args(argv)
    rows: list[results.Row] = []
    for valset in map(int, args.valset.split(",")):
        for system in args.systems.split(","):
            for candidates in map(int, args.candidates.split(",")):
                row = {"system": system, "candidates": candidates, "valset": valset}
                row |= apart(system, "engine", candidates, valset, args.limit)
                row |= apart(system, "bytes", min(candidates, args.bytes_candidates), valset, args.limit)
                row["ms_per_proposal"] = round(row["ms_per_proposal"], 4)
                rows.append(row)
                print(f"  {row}", file=sys.stderr, flush=True)
    _exponents(rows)
    columns = [
        "system",
        "candidates",
        "valset",
        "reached",
        "ms_per_proposal",
        "growth_exponent",
        "peak_mb",
        "bytes_written_ratio",
        "bytes_candidates",
    ]
    ordered = [{c: r.get(c) for c in columns} | r for r in rows]
    results.write(args.json, results.meta("overhead", limit_seconds=args.limit), ordered)
    print(results.table(ordered, columns))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
