"""Briefs for operators: built by hand or drawn by hypothesis."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from gepa_atlas.evolve.rng import rng
from gepa_atlas.ports import Brief
from gepa_atlas.types import Attempt, Candidate, Component, Demo, Example, Guidance, Lesson, Reward

GUIDANCE = Component("guidance", (), 2000, "instructions")
TEMPLATE = Component("template", ("question", "teaching"), 2000, "a template")
WORDS = ("red fox", "blue hen", "tall oak", "cold sea", "old mill", "new road", "dry well", "long day", "lost key", "warm tea")


def demo(i: int, answer: str | None = None) -> Demo:
    return Demo(f"t{i}", f"Item {i}: the {WORDS[i % 10]} beside number {i * 7} and the {WORDS[(i * 3 + 1) % 10]}", answer or f"A-{i:03d}")


def lesson(i: int, score: float | None, candidate: Candidate, output: str = "wrong", question: str | None = None) -> Lesson:
    d = demo(i)
    example = Example(d.example_id, question or d.question, (d.answer,))
    after = Reward(score) if score is not None else Reward.none("timeout", "too slow")
    return Lesson(example, candidate.id, 0, "playbook", Attempt("x"), Guidance(candidate.texts[0][1]), Attempt(output), Reward(0.0), after)


def brief(
    parent: Candidate,
    *,
    pool: Sequence[Demo] = (),
    lessons: Sequence[Lesson] = (),
    components: Sequence[Component] = (GUIDANCE,),
    address: int = 0,
    rejected: Sequence[Candidate] = (),
    mates: Sequence[Candidate] = (),
) -> Brief:
    return Brief((parent,), tuple(lessons), tuple(components), tuple(pool), rng(7, address, "op"), tuple(rejected), tuple(mates))


_line = st.one_of(
    st.sampled_from(
        ["Output only the answer.", "- a bullet", "1. first thing", "# Heading", "```\ncode {x}\n```", "Be kind. Be brief. Stop."]
    ),
    st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=60),
)
texts = st.lists(_line, max_size=6).map("\n".join)
templates = st.tuples(texts, texts).map(lambda t: f"{t[0]}\nThe question is {{question}}. Good luck.\n{{teaching}}\n{t[1]}")


@st.composite
def briefs(draw: st.DrawFn) -> tuple[Brief, int]:
    """A brief and the address of its rng, so that it can be made twice."""
    pool = [demo(i, draw(st.sampled_from(["yes", "no", None]))) for i in range(draw(st.integers(0, 20)))]

    def candidate() -> Candidate:
        chosen = draw(st.lists(st.sampled_from(pool), max_size=8, unique=True)) if pool else []
        return Candidate.of(
            {"guidance": draw(texts), "template": draw(templates)}, tuple(chosen), {"temperature": draw(st.sampled_from([0.0, 0.5]))}
        )

    parent, *others = [candidate() for _ in range(draw(st.integers(1, 5)))]
    cut = draw(st.integers(0, len(others)))
    lessons = [lesson(i, draw(st.sampled_from([0.0, 0.5, 1.0, None])), parent) for i in range(draw(st.integers(0, 6)))]
    address = draw(st.integers(0, 10**6))
    made = brief(
        parent, pool=pool, lessons=lessons, components=(GUIDANCE, TEMPLATE), address=address, mates=others[:cut], rejected=others[cut:]
    )
    return made, address
