"""report.html and report.md: what is in them, that foreign text stays text, that nothing grows past its limit, that no secret gets in."""

from __future__ import annotations

import base64
import json
import re
import time
import zlib
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from benchmarks.report import plain, synthetic
from gepa_atlas import secrets
from gepa_atlas.report import html, page
from gepa_atlas.report.evidence import Evidence, panel, points
from gepa_atlas.report.markdown import fenced, markdown
from tests.report.records import ALL, SEED_WON, record

HOSTILE = (
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "{{ 7*7 }} {% raw %} ${x} `y`",
    "</style><style>*{display:none}</style>",
    "<!-- --> ]]> &lt; &amp; \u2028 \u202e \x00 \ud800",
    "```\n# heading\n| a | b | 🎓 é",
)


def words(random: np.random.Generator, n: int) -> str:
    return f"{plain(random, n)} {HOSTILE[int(random.integers(len(HOSTILE)))]}"


@pytest.fixture(scope="module")
def hostile() -> Evidence:
    made = synthetic(12, 20, 4, words=words)
    return replace(made, record=replace(made.record, name=HOSTILE[0], notes=HOSTILE, stop_reason=HOSTILE[1]))


def unpacked(document: str, name: str) -> bytes:
    found = re.search(rf'<script type="text/plain" id="d-{name}">(.*?)</script>', document, re.DOTALL)
    assert found is not None
    return zlib.decompress(base64.b64decode(found[1]), -15)


def rows(document: str, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in unpacked(document, name).splitlines()]


class Shape(HTMLParser):
    """Tags, and attributes that do something."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.acting: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.acting += [name for name, _ in attrs if name.startswith("on")]
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "action", "srcset", "data")]


def shape(document: str) -> Shape:
    found = Shape()
    found.feed(document)
    return found


def test_foreign_text_is_text(hostile: Evidence) -> None:
    document = html.page(hostile).decode()
    quiet = synthetic(12, 20, 4)
    tags = shape(html.page(quiet).decode()).tags
    theirs = shape(document)
    assert {t: theirs.tags.count(t) for t in ("script", "img", "svg", "style", "meta")} == {
        t: tags.count(t) for t in ("script", "img", "svg", "style", "meta")
    }
    assert theirs.acting == []
    assert all(link.startswith(("#", "data:,")) or link in html.FILES for link in theirs.fetched)
    questions = [row["q"] for row in rows(document, "lessons") if "x" in row]
    assert any("</script>" in q for q in questions)  # the data holds it as it was, where markup cannot be


def test_the_policy_forbids_the_network_and_names_the_scripts(hostile: Evidence) -> None:
    document = html.page(hostile).decode()
    policy = html.policy(html.scripts(), html.plotly())
    assert policy.replace("'", "&#39;") in document
    assert "default-src 'none'" in policy and "connect-src" not in policy and "unsafe-eval" not in policy
    assert "'unsafe-inline'" not in policy.split("style-src")[0]
    assert "</script" not in html.scripts()


def test_candidates_and_heat_can_be_read_back(hostile: Evidence) -> None:
    document = html.page(hostile).decode()
    head = json.loads(unpacked(document, "head"))
    bodies = {row["i"]: row for row in rows(document, "candidates") if "i" in row}
    texts: dict[int, str] = {}
    for i, member in enumerate(hostile.record.population):
        body, made, at = bodies[i], "", 0
        old = texts.get(body["base"], "") if body["base"] is not None else ""
        for step in body["texts"].get("guidance", [len(old)]):
            made += step if isinstance(step, str) else old[at : at + step] if step > 0 else ""
            at += 0 if isinstance(step, str) else abs(step)
        texts[i] = made
        assert made == page.said(member.candidate.text("guidance"), page.PROMPT)
    cells = np.frombuffer(unpacked(document, "heat"), dtype=np.uint8).reshape(head["heat"])
    ids = [row["id"] for row in head["examples"]]
    seen = {(lesson.candidate_id, lesson.example.id): lesson.after.value for lesson in hostile.lessons}
    for i, row in enumerate(head["candidates"]):
        for j, example in enumerate(ids):
            value = seen.get((row["id"], example), "never")
            expected = page.NOT_EVALUATED if value == "never" else page.FAILED if value is None else page.ZERO + round(100 * float(value))
            assert cells[i, j] == expected


def test_every_proposal_is_in_the_tree(hostile: Evidence) -> None:
    """One that made no candidate, and one that made a known candidate once more, have a line and a reason of their own."""
    last = hostile.slots[-1]
    none = replace(last, n=90, candidate=None, decision=replace(last.decision, n=90, candidate_id=None, reason="nothing would be left"))
    again = replace(last, n=91, decision=replace(last.decision, n=91, reason="the same idea was told"))
    head = json.loads(unpacked(html.page(replace(hostile, slots=(*hostile.slots, none, again))).decode(), "head"))
    assert [(r["slot"], r["reason"]) for r in head["refusals"]] == [(90, "nothing would be left"), (91, "the same idea was told")]
    parent = [m.candidate.id for m in hostile.record.population].index(last.parents[0])
    assert {r["parent"] for r in head["refusals"]} == {parent}
    assert len(head["candidates"]) == len(hostile.record.population)


def test_not_evaluated_failed_and_zero_are_three_things() -> None:
    assert len({page.NOT_EVALUATED, page.FAILED, page.ZERO}) == 3


@pytest.mark.parametrize("verdict", [*ALL.values(), SEED_WON], ids=[*ALL, "seed won"])
def test_every_verdict_has_a_page(verdict: Any) -> None:
    run = record(verdict)
    if verdict is SEED_WON:
        run = replace(run, challenger=run.seed)
    document, text = html.page(Evidence(run, ())).decode(), markdown(Evidence(run, ()))
    assert verdict.ruling.value in document and verdict.ruling.value in text
    for question in ("Did it help?", "How sure are you?", "What changed?", "What did it cost?", "What cannot be claimed"):
        assert question in document
    assert "search (select)" in document


def test_the_search_split_is_never_called_performance(hostile: Evidence) -> None:
    for text in (html.page(hostile).decode(), markdown(hostile)):
        assert "is not performance" in text
    assert "gain against length" in html.page(hostile).decode(), "the axis is tokens, or characters where no tokens are known"


def test_markdown_keeps_foreign_text_inside_its_fences(hostile: Evidence) -> None:
    text = markdown(hostile)
    outside = re.sub(r"(?ms)^(`{3,})text\n.*?^\1$", "", text)
    assert "evolved" in outside or "Keep the seed" in outside
    assert not re.search(r"(?<!\\)<(script|img|svg|style)", outside)
    assert "\n# heading" not in outside
    assert fenced("a ``` b ```` c").startswith("`````text\n")


def test_equal_runs_have_equal_reports() -> None:
    one, other = synthetic(6, 10, 3), synthetic(6, 10, 3)
    assert html.page(one) == html.page(other)
    assert markdown(one) == markdown(other)


def test_large_texts_are_cut_and_said_to_be() -> None:
    def noise(random: np.random.Generator, n: int) -> str:
        return random.bytes(120 * n).hex()

    large = synthetic(60, 60, 40, words=noise)
    document = html.page(large)
    assert len(document) < 5_000_000
    assert b"traces.jsonl</a> has every lesson in full" in document
    assert re.search(rb"the texts of [\d,]+ of [\d,]+ lessons are not on this page", document)


def test_a_run_of_2000_candidates_and_500_examples() -> None:
    evidence = synthetic(2000, 500, 3)
    began = time.process_time()
    document = html.page(evidence)
    took = time.process_time() - began
    assert took < 10 and len(document) < 5_000_000, (took, len(document))
    assert len(json.loads(unpacked(document.decode(), "head"))["candidates"]) == 2000


def test_no_secret_gets_in(monkeypatch: pytest.MonkeyPatch) -> None:
    canary = "canary-<&>'\"-5f0c2d"
    monkeypatch.setattr(secrets, "_known", set())
    secrets.remember(canary)

    def leaking(random: np.random.Generator, n: int) -> str:
        return f"{plain(random, n)} {canary} sk-{'a' * 30}"

    evidence = synthetic(8, 12, 4, words=leaking)
    evidence = replace(evidence, record=replace(evidence.record, notes=(f"the key is {canary}",), stop_reason=f"because {canary}"))
    document = html.page(evidence).decode()
    everything = [document, markdown(evidence)]
    everything += [unpacked(document, name).decode("utf-8", "replace") for name in ("head", "candidates", "lessons", "exports")]
    for text in everything:
        assert "5f0c2d" not in text and "sk-aaaa" not in text
    assert any("[redacted]" in text for text in everything)


def test_the_front_holds_who_is_not_beaten() -> None:
    found = points(synthetic(40, 40, 30))
    front = [p for p in found if p.front]
    assert front
    for p in front:
        assert p.tokens is not None and p.dollars is not None
        beaten = [q for q in found if q.gain > p.gain and q.harm <= p.harm and (q.tokens, q.dollars) == (p.tokens, p.dollars)]
        assert all(q.lessons < max(f.lessons for f in found) / 2 for q in beaten)


def test_judges_are_compared_on_what_both_scored() -> None:
    seen = panel(synthetic(20, 30, 10).lessons)
    assert [j.name for j in seen.judges] == ["exact", "llm"]
    (pair,) = seen.agreement
    assert 0.05 < pair.disagreed < 0.2  # one in ten was made to differ
    assert pair.apart == pytest.approx(pair.disagreed)
    assert seen.reasons == {"timeout": seen.answers - pair.answers}
