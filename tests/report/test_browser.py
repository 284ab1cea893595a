"""report.html in a real browser: nothing on the console, nothing on the network, usable by keyboard, on a phone, in the dark.

Screenshots are left in tests/output/.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report import CHROMIUM, FLAGS, synthetic
from gepa_atlas.cli import run as cli
from gepa_atlas.report import html
from gepa_atlas.report.evidence import Evidence
from gepa_atlas.report.exporters import FORMS, export
from gepa_atlas.report.prompts import optimized_prompts
from tests.report.test_page import HOSTILE, words

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; the extra [dev] has it")
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no {CHROMIUM}; on Debian: apt-get install chromium")

ROOT = Path(__file__).parent.parent.parent
OUTPUT = ROOT / "tests" / "output"
SIZES = {"desktop": (1280, 800), "phone": (390, 844)}


class Seen:
    """A tab and everything it said or asked for."""

    def __init__(self, tab: Any) -> None:
        self.tab = tab
        self.console: list[str] = []
        self.requests: list[str] = []
        tab.on("console", lambda m: self.console.append(f"{m.type}: {m.text}"))
        tab.on("pageerror", lambda e: self.console.append(f"error: {e}"))
        tab.on("dialog", lambda d: self.console.append(f"dialog: {d.message}"))
        tab.on("request", lambda r: self.requests.append(r.url))

    def open(self, path: Path) -> Any:
        self.tab.goto(path.as_uri())
        self.tab.wait_for_selector("body[data-ready]", timeout=90_000)
        return self.tab

    def is_clean(self, path: Path) -> None:
        assert self.console == []
        assert [url for url in self.requests if url != path.as_uri() and not url.startswith(("data:", "blob:"))] == []


Opener = Callable[..., Seen]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with playwright.sync_playwright() as play:
        started = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def tab(browser: Any) -> Iterator[Opener]:
    contexts = []

    def make(size: str = "desktop", scheme: str = "light") -> Seen:
        width, height = SIZES[size]
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, accept_downloads=True))
        contexts[-1].set_default_timeout(90_000)
        return Seen(contexts[-1].new_page())

    yield make
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def toyworld(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a real run."""
    directory = tmp_path_factory.mktemp("run") / "toyworld"
    assert cli(["optimize", str(ROOT / "configs/examples/toyworld.yaml"), "--run-dir", str(directory), "--quiet"]) == 0
    return directory / "report.html"


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    made = synthetic(30, 40, 8, words=words)
    return replace(made, record=replace(made.record, name=HOSTILE[0], notes=HOSTILE))


@pytest.fixture(scope="module")
def hostile(evidence: Evidence, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hostile") / "report.html"
    path.write_bytes(html.page(evidence))
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_it_opens_clean_in_every_form(size: str, scheme: str, toyworld: Path, tab: Opener) -> None:
    seen = tab(size, scheme)
    page = seen.open(toyworld)
    OUTPUT.mkdir(exist_ok=True)
    page.screenshot(path=OUTPUT / f"report-{size}-{scheme}-first-screen.png")
    page.locator("#tree .row").nth(2).click()
    page.locator("#ex-list .row").nth(1).click()
    page.locator("#search").scroll_into_view_if_needed()
    page.locator(".plot .main-svg").nth(3).wait_for(state="attached", timeout=90_000)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.evaluate("document.documentElement.style.scrollBehavior = 'auto'; scrollTo(0, 0)")
    page.screenshot(path=OUTPUT / f"report-{size}-{scheme}.png", full_page=True)
    seen.is_clean(toyworld)


def test_the_first_screen_answers_the_four_questions(toyworld: Path, tab: Opener) -> None:
    page = tab().open(toyworld)
    for name in ("helped", "sure", "changed", "cost"):
        box = page.locator(f"section[aria-labelledby={name}]").bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= 800, name
    text = page.locator("main").inner_text()
    assert "95 % interval" in text and "rollouts" in text and "Why it stopped" in text


def test_everything_is_reached_by_keyboard(toyworld: Path, tab: Opener) -> None:
    page = tab().open(toyworld)
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id"))
    wanted = ["theme", "form", "copy", "save", "ancestor", "tree-filter", "tree-find", "tree"]
    wanted += ["heat", "ex-filter", "ex-split", "ex-find", "ex-list"]
    assert [name for name in dict.fromkeys(reached) if name in wanted] == wanted
    page.focus("#tree")
    page.keyboard.press("ArrowDown")
    assert "(the seed)" in page.locator("#candidate").inner_text()
    page.keyboard.press("End")
    assert page.locator("#tree .row.on").count() == 1
    page.focus("#heat")
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    assert "scored" in page.locator("#heat-said").inner_text() or "not evaluated" in page.locator("#heat-said").inner_text()
    page.keyboard.press("Enter")
    assert "Without guidance" in page.locator("#lesson").inner_text()


def test_hostile_texts_are_shown_and_do_nothing(hostile: Path, evidence: Evidence, tab: Opener) -> None:
    seen = tab()
    page = seen.open(hostile)
    rows = page.locator("#ex-list .row")
    for i in range(rows.count()):
        rows.nth(i).click()
    for i in range(page.locator("#tree .row").count()):
        page.locator("#tree .row").nth(i).click()
    page.locator("#search").scroll_into_view_if_needed()
    page.locator(".plot .main-svg").nth(3).wait_for(state="attached", timeout=90_000)
    assert page.title().startswith(HOSTILE[0])
    assert page.locator("main img, main script, main style, [onerror], [onload]").count() == 0
    assert HOSTILE[0] in page.locator(".claims").inner_text()
    seen.is_clean(hostile)


def test_the_text_of_every_candidate_is_what_it_was(hostile: Path, evidence: Evidence, tab: Opener) -> None:
    page = tab().open(hostile)
    shown = page.evaluate("head.candidates.map((_, i) => textsOf(i).guidance)")
    texts = [m.candidate.text("guidance").replace("\ud800", "\ufffd") for m in evidence.record.population]
    assert shown == texts


def test_filters_find_what_they_say(hostile: Path, evidence: Evidence, tab: Opener) -> None:
    page = tab().open(hostile)
    ours = {x.example.id: x for x in evidence.lessons if x.candidate_id == evidence.challenger_id}
    count = {
        "harmed": sum(x.delta is not None and x.delta < 0 for x in ours.values()),
        "fixed": sum(x.delta is not None and x.delta > 0 for x in ours.values()),
        "failed": sum(x.delta is None for x in ours.values()),
    }
    assert count["fixed"] > 0
    for name, n in count.items():
        page.select_option("#ex-filter", name)
        assert page.locator("#ex-count").inner_text().startswith(f"{n} of ")
    page.select_option("#ex-filter", "all")
    page.select_option("#ex-split", "test")
    assert page.locator("#ex-count").inner_text().startswith(f"{evidence.record.splits['test']} of ")


def test_the_prompt_is_exported_as_the_command_does_it(hostile: Path, evidence: Evidence, tab: Opener, tmp_path: Path) -> None:
    page = tab().open(hostile)
    document = optimized_prompts(evidence.record)
    for form in FORMS:
        page.select_option("#form", form)
        with page.expect_download() as info:
            page.click("#save")
        name, text = export(document, form)
        path = tmp_path / form
        info.value.save_as(path)
        assert info.value.suggested_filename == name
        assert path.read_bytes().decode() == text.replace("\ud800", "\ufffd"), form


def test_light_and_dark_can_be_chosen(toyworld: Path, tab: Opener) -> None:
    page = tab("desktop", "light").open(toyworld)
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.click("#theme")
    dark = page.evaluate(background)
    page.click("#theme")
    assert light != dark and page.evaluate(background) == light


def test_without_plotly_the_figures_are_tables(evidence: Evidence, tab: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "plotly", lambda: None)
    monkeypatch.setattr(html, "_packed_plotly", lambda: None)
    path = tmp_path / "report.html"
    path.write_bytes(html.page(evidence))
    assert path.stat().st_size < 500_000
    seen = tab()
    page = seen.open(path)
    assert page.locator(".plot").count() == 0
    assert page.locator("figure details[open]").count() == 2
    assert "gepa-atlas[report]" in page.locator("#search").inner_text()
    seen.is_clean(path)


def test_only_the_rows_in_sight_exist(tab: Opener, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_bytes(html.page(synthetic(600, 120, 3)))
    seen = tab()
    page = seen.open(path)
    for box in ("#tree", "#ex-list"):
        page.eval_on_selector(box, "box => { box.scrollTop = box.scrollHeight / 2; }")
        page.wait_for_timeout(100)
        assert 5 < page.locator(f"{box} .row").count() < 40
    seen.is_clean(path)
