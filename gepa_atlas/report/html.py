"""report.html: one file that opens offline. Static parts by Jinja with autoescape, the rest drawn by assets/report.js from packed data.

The policy of the page forbids every network access, and runs no script but the two whose hashes it names: our own and plotly's. A text that
slipped through as markup could still do nothing. `parts` and the macros in templates/ are what a live view draws with, too.
"""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gepa_atlas.report import diff
from gepa_atlas.report.evidence import Evidence, costs, panel, points
from gepa_atlas.report.exporters import FORMS, export
from gepa_atlas.report.page import PROMPT, deflated, encoded, pack, said
from gepa_atlas.report.prompts import optimized_prompts
from gepa_atlas.report.summary import claims, sentence, spend_text
from gepa_atlas.secrets import scrub, scrub_json
from gepa_atlas.types import Candidate, Ruling

FILES = ("optimized_prompts.json", "traces.jsonl", "report.md")
_TONE = {Ruling.SHIP: "good", Ruling.DO_NOT_SHIP: "bad", Ruling.INCONCLUSIVE: "unsure"}
_TABLE = 12  # rows of a table that stands beside a figure


def page(evidence: Evidence) -> bytes:
    """The whole file. Nothing in it depends on a clock or a path, so equal runs have equal reports."""
    packed = pack(evidence)
    script, plots = scripts(), plotly()
    document = scrub_json(optimized_prompts(evidence.record))  # before texts are quoted in other formats
    exports = {form: dict(zip(("file", "text"), export(document, form), strict=True)) for form in FORMS}
    html = template("report.html").render(
        **parts(evidence),
        style=_raw(asset("report.css")),
        script=_raw(script),
        policy=policy(script, plots),
        plotly=_packed_plotly(),
        head=packed.head,
        candidates=packed.candidates,
        lessons=packed.lessons,
        heat=packed.heat,
        exports=encoded(deflated(json.dumps(exports).encode("utf-8", "replace"))),
        forms=list(FORMS),
        cuts=packed.cuts,
        files=FILES,
    )
    return str(html).encode("utf-8", "replace")


def policy(script: str, plots: str | None) -> str:
    """The page's Content-Security-Policy: no network, no frame, no form; only scripts whose text has one of these hashes."""
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(t.encode()).digest()).decode()}'" for t in (script, plots) if t)
    return f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"


@cache
def plotly() -> str | None:
    """The text of plotly.js out of the installed package, which is not imported; None without the extra [report]."""
    spec = find_spec("plotly")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "package_data" / "plotly.min.js"
    return path.read_text("utf-8") if path.is_file() else None


@cache
def _packed_plotly() -> str | None:
    source = plotly()
    return None if source is None else encoded(deflated(source.encode()))


def scripts() -> str:
    """Our own script: the first file declares what the second and the last line use."""
    return "".join(asset(name) for name in ("report.js", "figures.js", "start.js"))


def asset(name: str) -> str:
    return (resources.files("gepa_atlas.report") / "assets" / name).read_text("utf-8")


def parts(evidence: Evidence) -> dict[str, Any]:
    """What the static parts are filled with; every foreign text is scrubbed, and plain text still."""
    record, verdict = evidence.record, evidence.record.verdict
    tested = record.challenger
    return {
        "name": said(record.name, 200),
        "run_id": record.run_id,
        "started": datetime.fromtimestamp(evidence.started, UTC).strftime("%Y-%m-%d %H:%M UTC") if evidence.started else "",
        "digest": record.digest,
        "ruling": verdict.ruling.value,
        "tone": _TONE[verdict.ruling],
        "sentence": scrub(sentence(record)),
        "shipped": record.shipped,
        "compared": tested.id != record.seed.id,
        "verdict": verdict,
        "bar": _bar(verdict.gain, verdict.gain_low, verdict.gain_high),
        "claims": [scrub(claim) for claim in claims(record)],
        "stop": scrub(record.stop_reason),
        "rollouts": f"{record.rollouts:,}" + (f" of {record.rollout_limit:,}" if record.rollout_limit is not None else ""),
        "costs": [{"who": scrub(row["who"]), "text": spend_text(row["usage"]), "usage": row["usage"]} for row in costs(evidence)],
        "splits": record.splits,
        "change": change(record.seed, tested),
        "diff": (told := text_diff(record.seed, tested)),
        "brief": [part | {"pieces": diff.brief(part["pieces"])} for part in told],
        "use": [{"name": said(name, 200), "text": said(text, PROMPT)} for name, text in record.winner.texts],
        "demos": [{"question": said(d.question), "answer": said(d.answer)} for d in record.winner.demos],
        "settings": {said(k, 100): said(str(v), 200) for k, v in record.winner.settings},
        "operators": evidence.credit,
        "course": _course(evidence),
        "front": [p for p in sorted(points(evidence), key=lambda p: -p.gain) if p.front][:_TABLE],
        "panel": panel(evidence.lessons),
        "watch": record.watch,
        "fingerprints": {k: scrub(v) for k, v in sorted(record.fingerprints.items())},
        "protocol": record.protocol,
        "candidates_count": len(record.population),
        "kept": sum(c.kept for c in evidence.credit),
        "lessons_count": len({lesson.cell for lesson in evidence.lessons}),
    }


def text_diff(old: Candidate, new: Candidate) -> list[dict[str, Any]]:
    """By component: its name and the pieces of the word diff; a text that did not change has one piece."""
    before, after = dict(old.texts), dict(new.texts)
    return [
        {"name": said(name, 200), "pieces": diff.pieces(said(before.get(name, ""), PROMPT), said(after.get(name, ""), PROMPT))}
        for name in sorted(before.keys() | after.keys())
    ]


def change(old: Candidate, new: Candidate) -> dict[str, Any]:
    """How much changed: characters in and out, demonstrations added and dropped, settings."""
    found = [piece for part in text_diff(old, new) for piece in part["pieces"]]
    before, after = dict(old.settings), dict(new.settings)
    return {
        "added": sum(len(p.text) for p in found if p.op == "+"),
        "dropped": sum(len(p.text) for p in found if p.op == "-"),
        "demos_added": [{"question": said(d.question, 300), "answer": said(d.answer, 300)} for d in new.demos if d not in old.demos],
        "demos_dropped": sum(d not in new.demos for d in old.demos),
        "settings": {k: (before.get(k), after.get(k)) for k in sorted(before.keys() | after.keys()) if before.get(k) != after.get(k)},
        "size": new.size(),
    }


def _course(evidence: Evidence) -> list[dict[str, Any]]:
    """The rows of best-so-far at which the best candidate changed, the last ones."""
    rows: list[dict[str, Any]] = []
    for standing in evidence.course:
        row = {"rollouts": standing.rollouts, "id": standing.best_id, "mean": standing.mean, "half": 1.96 * standing.var**0.5}
        if rows and rows[-1]["id"] == standing.best_id:
            rows[-1] |= {"mean": standing.mean, "half": row["half"]}
        else:
            rows.append(row)
    return rows[-_TABLE:]


def _bar(gain: float | None, low: float | None, high: float | None) -> dict[str, float] | None:
    """Where the interval stands on a scale from -1 to 1, in percent of its width."""
    if gain is None or low is None or high is None:
        return None
    return {"low": 50 + 50 * low, "high": 50 + 50 * high, "gain": 50 + 50 * gain, "width": 50 * (high - low)}


def template(name: str) -> Any:
    """A template of this package: autoescaped, and an unknown name in it is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("gepa_atlas.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(signed=_signed, figure=_figure, count=lambda n: f"{n:,}", share=_share)
    return environment.get_template(name)


def _raw(text: str) -> Any:
    """Our own script or style, as it is."""
    from markupsafe import Markup

    return Markup(text)


def _signed(value: float | None, places: int = 3) -> str:
    return "unknown" if value is None else f"{value:+.{places}f}"


def _figure(value: float | None, places: int = 3) -> str:
    return "unknown" if value is None else f"{value:.{places}f}"


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{100 * value:.1f} %"
