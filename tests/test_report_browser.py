"""The report in a browser: sorting, filtering, zooming, by hand and by key, without a request."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sgm.report import of_published, report_page, write_index, write_report
from sgm.report.table import table_of_cells
from tests.browser import CHROMIUM, Page, chromium
from tests.test_report import hostile

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
    pytest.mark.xdist_group("browser"),
]

READY = "document.body.dataset.table === 'ready'"
SHOWN = """[...document.querySelectorAll(".tabulator-row")].map(
    (row) => [...row.querySelectorAll(".tabulator-cell")].map((cell) => cell.textContent))"""
TITLES = """[...document.querySelectorAll(".tabulator-col[role=columnheader]")].map(
    (head) => head.querySelector(".tabulator-col-title").textContent)"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(of_published("exact-w2"), tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture
def page(browser: Page, report: Path) -> Iterator[Page]:
    """The report, opened afresh; whatever is done with it asks for nothing, without a complaint."""
    browser.requests.clear()
    browser.complaints.clear()
    browser.look(1280, 900)
    browser.open(report)
    browser.wait(READY)
    yield browser
    assert browser.requests == []
    assert browser.complaints == []


def column(page: Page, title: str) -> list[str]:
    place = page.do(TITLES).index(title)
    return [row[place] for row in page.do(SHOWN)]


def head(title: str) -> str:
    """The heading of a column, as an expression."""
    return f"""[...document.querySelectorAll(".tabulator-col[role=columnheader]")].find(
        (head) => head.querySelector(".tabulator-col-title").textContent === {title!r})"""


def count(page: Page) -> str:
    return str(page.do("document.getElementById('count').textContent"))


def test_a_click_sorts_by_number(page: Page) -> None:
    assert len(page.do(SHOWN)) == 25
    cells = table_of_cells(of_published("exact-w2").grid).cells
    errors = sorted(map(float, cells["error"]))
    page.do(f"{head('error')}.click()")
    page.wait(f"{head('error')}.getAttribute('aria-sort') === 'ascending'")
    assert [float(text) for text in column(page, "error")] == errors[:25]
    page.do(f"{head('error')}.click()")
    page.wait(f"{head('error')}.getAttribute('aria-sort') === 'descending'")
    assert [float(text) for text in column(page, "error")] == errors[::-1][:25]


def test_cells_without_a_number_come_last(page: Page) -> None:
    for order in ("ascending", "descending"):
        page.do(f"{head('w2_bound')}.click()")
        page.wait(f"{head('w2_bound')}.getAttribute('aria-sort') === '{order}'")
        assert all(column(page, "w2_bound")), order


def test_a_key_sorts_and_a_key_closes(page: Page) -> None:
    page.do(f"{head('regret')}.focus()")
    page.press("Enter", 13)
    page.wait(f"{head('regret')}.getAttribute('aria-sort') === 'ascending'")
    page.do("document.querySelector('.zoom').focus()")
    page.press("Enter", 13)
    page.wait("document.getElementById('zoomed').open")
    first = page.do("document.querySelector('#zoomed img').alt")
    assert first == page.do("document.querySelector('.zoom img').alt")
    page.press("ArrowRight", 39)
    assert page.do("document.querySelector('#zoomed img').alt") != first
    page.press("Escape", 27)
    page.wait("!document.getElementById('zoomed').open")
    assert page.do("document.activeElement.className") == "zoom"  # where the reader was


def test_filters_keep_what_they_say(page: Page) -> None:
    cells = table_of_cells(of_published("exact-w2").grid).cells
    every = f"{len(cells):,} of {len(cells):,} rows"
    assert count(page) == every
    page.do("""(() => { const select = [...document.querySelectorAll("#filters label")].find(
        (label) => label.firstChild.textContent === "target").querySelector("select");
        select.value = [...select.options].find((o) => o.textContent === "wide").value;
        select.dispatchEvent(new Event("change")); })()""")
    kept = cells[cells["target"] == "wide"]
    page.wait(f"document.getElementById('count').textContent.startsWith('{len(kept):,} of')")
    assert set(column(page, "target")) == {"wide"}
    page.do(f"""(() => {{ const field = {head("error")}.querySelector("input");
        field.value = "< 0.01"; field.dispatchEvent(new Event("keyup"));
        field.dispatchEvent(new Event("input")); field.dispatchEvent(new Event("change")); }})()""")
    small = kept[kept["error"].astype(float) < 0.01]
    assert 0 < len(small) < len(kept)
    page.wait(f"document.getElementById('count').textContent.startsWith('{len(small):,} of')")
    assert all(float(text) < 0.01 for text in column(page, "error"))
    page.do("document.querySelector('#filters [type=reset]').click()")
    page.wait(f"document.getElementById('count').textContent === '{every}'")


def test_marks_say_what_they_are(page: Page) -> None:
    assert page.do("document.getElementById('tip').hidden")
    page.do("""document.querySelector(".dots [data-tip] circle").dispatchEvent(
        new PointerEvent("pointermove", { bubbles: true, clientX: 200, clientY: 200 }))""")
    tip = page.do("document.getElementById('tip').textContent")
    assert tip == page.do("document.querySelector('.dots [data-tip]').dataset.tip")
    assert not page.do("document.getElementById('tip').hidden")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_fits_its_window_and_can_be_read(page: Page, width: int, dark: bool) -> None:
    page.look(width, 800, dark=dark)
    assert page.do("document.documentElement.scrollWidth") <= width
    for element in ("body", ".quiet", "a", ".dots .best th", ".tabulator-cell", ".pick", ".copy"):
        contrast = page.do(CONTRAST.replace("ELEMENT", element))
        assert contrast >= 4.5, (element, contrast)  # WCAG 2.1, 1.4.3
    light = page.do("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert light is not dark


#: The contrast of an element's text with what is behind it.
CONTRAST = """(() => {
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
  const luminance = (rgb) => rgb.slice(0, 3).map((c) => c / 255).map(
    (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
  ).reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  let node = document.querySelector("ELEMENT"), behind = [0, 0, 0, 0];
  const ink = luminance(numbers(getComputedStyle(node).color));
  for (; node && (behind[3] ?? 1) === 0; node = node.parentElement)
    behind = numbers(getComputedStyle(node).backgroundColor);
  const paper = luminance(behind);
  return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
})()"""


def test_thousands_of_rows_can_be_used(browser: Page, tmp_path: Path) -> None:
    browser.open(write_report(of_published("leaderboard"), tmp_path / "report.html"))
    browser.wait(READY)
    assert count(browser) == "33,120 of 33,120 rows"
    assert browser.do("document.querySelectorAll('*').length") < 4000
    taken = browser.do(f"""(async () => {{ const start = performance.now();
        {head("error")}.click(); await new Promise(requestAnimationFrame);
        return performance.now() - start; }})()""")
    assert taken < 5000  # ms; a tenth of it alone on a processor


def test_texts_of_a_study_execute_nothing(browser: Page, tmp_path: Path) -> None:
    browser.complaints.clear()
    path = tmp_path / "report.html"
    path.write_text(report_page(hostile(tmp_path)), encoding="utf-8")
    browser.open(path)
    browser.wait(READY)
    browser.do("document.querySelector('.zoom').click()")
    browser.do(
        "document.querySelector('.dots [data-tip] circle').dispatchEvent("
        "new PointerEvent('pointermove', { bubbles: true, clientX: 9, clientY: 9 }))"
    )
    assert browser.do("window.hacked") is None
    assert browser.do("document.querySelectorAll('#table script, #table img').length") == 0
    assert browser.complaints == []  # nothing that the policy had to refuse
    index = write_index({"All": [path]}, tmp_path / "index.html")
    browser.open(index)
    assert browser.do("document.querySelectorAll('article').length") == 1
    assert browser.complaints == []
    assert browser.requests == []


def test_a_request_or_a_complaint_would_be_noticed(browser: Page, tmp_path: Path) -> None:
    policy = '<meta http-equiv="Content-Security-Policy" content="script-src \'none\'">'
    harms = {
        '<img src="http://127.0.0.1:9/x.png">': "requests",
        "<script>console.error('broken')</script>": "complaints",
        "<script>undefined.x</script>": "complaints",
        f"{policy}<script>1</script>": "complaints",
    }
    for i, (harm, where) in enumerate(harms.items()):
        browser.requests.clear()
        browser.complaints.clear()
        path = tmp_path / f"{i}.html"
        path.write_text(f"<!DOCTYPE html><title>x</title>{harm}")
        browser.open(path)
        assert getattr(browser, where), harm
