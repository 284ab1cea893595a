"""The live page in a real browser, while a real run goes on in another process. Screenshots are left in tests/output/."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report import CHROMIUM, FLAGS
from tests.ui.running import HOSTILE, ROOT, Server, hostile_run, start_run, ui

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; the extra [dev] has it")
pytest.importorskip("starlette", reason="the extra [ui] is not installed; [dev] has it")
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no {CHROMIUM}; on Debian: apt-get install chromium")

OUTPUT = ROOT / "tests" / "output"
SIZES = {"desktop": (1280, 800), "phone": (390, 844)}


class Seen:
    """A tab and everything it said or asked for."""

    def __init__(self, tab: Any, server: Server) -> None:
        self.tab, self.server = tab, server
        self.said: list[str] = []
        tab.on("console", lambda m: self.said.append(f"{m.type}: {m.text}"))
        tab.on("pageerror", lambda e: self.said.append(f"error: {e}"))
        tab.on("dialog", lambda d: self.said.append(f"dialog: {d.message}"))
        tab.on("request", lambda r: None if r.url.startswith((server.url, "data:", "blob:")) else self.said.append(f"asked {r.url}"))

    def open(self, path: str = "") -> Any:
        self.tab.goto(f"{self.server.url}{path}?token={self.server.token}")
        self.tab.wait_for_selector("body[data-ready]", state="attached", timeout=30_000)
        return self.tab

    def shot(self, name: str) -> None:
        OUTPUT.mkdir(exist_ok=True)
        self.tab.screenshot(path=OUTPUT / f"live-{name}.png", full_page=True)

    def fits(self) -> bool:
        return bool(self.tab.evaluate("document.documentElement.scrollWidth <= innerWidth"))


Opener = Callable[..., Seen]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("runs")
    hostile_run(place)
    return place


@pytest.fixture(scope="module")
def server(runs: Path) -> Iterator[Server]:
    with ui(runs) as started:
        yield started


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as play:
        started = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def tab(browser: Any, server: Server) -> Iterator[Opener]:
    contexts = []

    def make(size: str = "desktop", scheme: str = "light") -> Seen:
        width, height = SIZES[size]
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme))
        return Seen(contexts[-1].new_page(), server)

    yield make
    for context in contexts:
        context.close()


def test_a_run_is_watched_from_its_start_to_its_report(runs: Path, tab: Opener) -> None:
    """The list shows it by itself, its page moves by itself, and the end brings verdict and report: no reload anywhere."""
    seen, phone = tab(), tab("phone", "dark")
    page, small = seen.open(), phone.open()
    run = start_run(runs / "toy", 150, 0.1)
    page.wait_for_selector("text=toy >> visible=true", timeout=60_000)
    seen.shot("list-desktop-light")
    page.click("a:text-is('toy')")
    page.wait_for_selector("#status:text-is('running')", timeout=20_000)
    page.wait_for_selector("#decisions li:nth-child(3)", timeout=60_000)
    early = page.evaluate("[Number($('rollouts').textContent.split(' ')[0]), decisions.length]")
    small.click("a:text-is('toy')")
    small.wait_for_selector("#decisions li:nth-child(4)", timeout=60_000)
    small.wait_for_selector("#traffic tbody tr", timeout=20_000)
    assert "#" in small.inner_text("#slots") and "student" in small.inner_text("#traffic")
    for where, name in ((seen, "run-desktop-light"), (phone, "run-phone-dark")):
        where.shot(name)
        assert where.fits()
    page.wait_for_selector("#spark polyline", state="attached", timeout=60_000)
    page.wait_for_selector("#status:text-is('finished')", timeout=120_000)
    assert run.wait(60) == 0
    late = page.evaluate("[Number($('rollouts').textContent.split(' ')[0]), decisions.length]")
    assert late[0] > early[0] and late[1] > early[1]
    assert page.evaluate("decisions.map(d => d.n).every((n, i, all) => !i || all[i - 1] < n)")
    assert "held-out examples" in page.inner_text("#sentence")
    page.wait_for_selector("#report-link", timeout=20_000)
    seen.shot("finished-desktop-light")
    page.click("#report-link")
    page.wait_for_selector("body[data-ready]", timeout=30_000)
    assert "rollouts" in page.inner_text("main")
    page.locator("#search").scroll_into_view_if_needed()
    page.locator(".plot .main-svg").nth(3).wait_for(state="attached", timeout=20_000)
    assert seen.said == [] and phone.said == []


@pytest.mark.parametrize("size", SIZES)
def test_hostile_texts_are_text(size: str, tab: Opener) -> None:
    seen = tab(size)
    page = seen.open()
    link = page.locator("#runs a", has_text="onerror")
    assert link.inner_text() == HOSTILE
    seen.shot(f"list-{size}")
    assert seen.fits()
    link.click()
    page.wait_for_selector("body[data-page=run][data-ready]", timeout=20_000)
    assert page.inner_text("#name") == HOSTILE and HOSTILE in page.inner_text("#decisions") and HOSTILE in page.inner_text("#reason")
    assert page.locator("img, main script, [onerror]").count() == 0 and page.locator("#decisions li").count() == 2
    assert page.inner_text("#gain").startswith("+0.500")
    assert seen.fits() and seen.said == []


def test_everything_is_reached_by_keyboard(tab: Opener) -> None:
    page = tab().open()
    for _ in range(3):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('table').id") == "runs"
    page.keyboard.press("Enter")
    page.wait_for_selector("body[data-page=run][data-ready]", timeout=20_000)
    reached = []
    for _ in range(6):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    wanted = ["All runs", "theme", "filter", "decisions"]
    assert [name for name in reached if name in wanted] == wanted
    page.focus("#theme")
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.keyboard.press("Enter")
    dark = page.evaluate(background)
    page.reload()
    assert light != dark == page.evaluate(background)


def test_without_the_token_the_browser_sees_nothing(tab: Opener) -> None:
    seen = tab()
    seen.tab.goto(seen.server.url)
    assert "needs its token" in seen.tab.inner_text("body") and "onerror" not in seen.tab.content()


def test_a_page_says_when_the_server_is_gone(browser: Any, runs: Path, tmp_path: Path) -> None:
    with ui(tmp_path) as server:
        seen = Seen(browser.new_page(), server)
        page = seen.open()
        assert page.inner_text("#link") == "live" and page.is_visible("#none")
    page.wait_for_selector("#link:has-text('connection lost')", timeout=20_000)
    page.context.close()
