"""The page in a real browser: figures, filters, keys, hostile text, both widths, no network."""

import shutil

import pytest

from elicitor.report import gather, write_page


@pytest.fixture(scope="module")
def address(finished, data, tmp_path_factory):
    file = tmp_path_factory.mktemp("page") / "report.html"
    write_page(gather([finished], gold=data[0]), file)
    return file.as_uri()


@pytest.fixture
def page(visit, address):
    return visit(address).page


def rows(page):
    return page.locator("#rows .row").all_text_contents()


def count(page):
    return int(page.locator("#count").text_content().split()[0])


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
@pytest.mark.parametrize("width", [1280, 390])
def test_figures_have_marks_and_nothing_overflows(visit, address, width, scheme):
    seen = visit(address, width=width, scheme=scheme)
    page = seen.page
    figures = page.locator("figure")
    assert figures.count() == 8
    for k in range(figures.count()):
        box = figures.nth(k).locator("svg").bounding_box()
        assert 0 < box["width"] <= width
        assert box["height"] > 100
        # Drawn for this width, not scaled to it.
        assert abs(box["width"] - float(figures.nth(k).locator("svg").get_attribute("width"))) < 2
        assert figures.nth(k).locator("svg .role-mark path, svg .role-mark line").count() > 0
        assert len(figures.nth(k).locator("figcaption").text_content()) > 20
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.focus("#grid")
    page.keyboard.press("Enter")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert seen.asked == [address]


def test_colours_follow_the_reader(visit, address):
    light, dark = (
        visit(address, scheme=scheme).page.evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    )
    assert light == "rgb(255, 255, 255)"
    assert dark != light


def test_hostile_text_stays_text(page):
    page.focus("#grid")
    for _ in range(6):
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        page.focus("#grid")
    assert page.evaluate("window.hacked") is None
    assert any("<img src=x onerror=window.hacked=1>" in row for row in rows(page))
    assert any("⟨U+202E⟩100" in row for row in rows(page))
    assert page.locator("#rows img, #detail img, #rows script, #detail script, main b[onclick]").count() == 0


def test_filters_narrow_the_table(page, finished, data):
    run = gather([finished], gold=data[0]).runs[0]
    assert count(page) == 24
    page.select_option("#by-label", label="yes<i>")
    assert count(page) == run.counts["yes<i>"]
    page.click("text=Clear")
    page.select_option("#by-gold", "other")
    assert count(page) == sum(e.gold != e.label for e in run.examples)
    page.click("text=Clear")
    inside = {
        "against": lambda x: x < 0,
        "tie": lambda x: abs(x) < 0.5,
        "weak": lambda x: 0.5 <= x <= 2,
        "strong": lambda x: x > 2,
    }
    for name, test in inside.items():
        page.select_option("#by-margin", name)
        assert count(page) == sum(test(e.log_odds) for e in run.examples)
    page.click("text=Clear")
    page.fill("#by-group", "g3")
    assert count(page) == 2
    page.click("text=Clear")
    page.fill("#by-search", "TEXT 17 ")
    assert count(page) == 1
    page.fill("#by-search", "nothing like this")
    assert count(page) == 0
    assert "No example passes" in page.locator("#rows").text_content()
    page.click("text=Clear")
    assert count(page) == 24


def test_sorting_puts_the_weakest_first(page):
    page.click("[data-sort=odds]")
    shown = [float(text) for text in page.locator("#rows .margin b").all_text_contents()]
    assert shown == sorted(shown)
    page.click("[data-sort=odds]")
    assert page.get_attribute("[data-sort=odds]", "aria-sort") == "descending"
    shown = [float(text) for text in page.locator("#rows .margin b").all_text_contents()]
    assert shown == sorted(shown, reverse=True)


def test_keys_reach_everything(page):
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "by-search"
    page.keyboard.type("text 5 ")
    page.focus("#grid")
    page.keyboard.press("Enter")
    detail = page.locator("#detail")
    assert detail.locator("h3").text_content() == "e5"
    assert page.evaluate("document.activeElement.id") == "detail"
    assert "line one\nline two\tand a tab ⟨U+2028⟩ end:" in detail.locator("pre").text_content()
    assert "Prompt, after up to 23 others" in detail.text_content()
    assert detail.locator(".members li").count() == 2
    assert detail.locator(".history li").count() >= 1
    page.keyboard.press("Escape")
    assert detail.is_hidden()
    assert page.evaluate("document.activeElement.id") == "grid"


def test_moving_with_keys_scrolls_and_the_detail_follows(page):
    page.focus("#grid")
    page.keyboard.press("Enter")
    page.focus("#grid")
    page.keyboard.press("End")
    assert page.locator("#detail h3").text_content() == "e23"
    active = page.locator("#rows .active").bounding_box()
    grid = page.locator("#grid").bounding_box()
    assert grid["y"] <= active["y"]
    assert active["y"] + active["height"] <= grid["y"] + grid["height"] + 1
    page.keyboard.press("Home")
    assert page.locator("#detail h3").text_content() == 'e0"><svg onload=window.hacked=1>'


def test_a_group_leads_to_its_members(page):
    page.fill("#by-search", "text 5 ")
    page.click("#rows .row")
    page.click("#detail .members li:first-child button")
    assert page.locator("#detail h3").text_content() == "e4"
    assert count(page) == 24
    page.click("text=show them alone")
    assert count(page) == 2


@pytest.mark.slow
def test_several_runs_are_compared(visit, finished, data, tmp_path):
    twin = shutil.copytree(finished, tmp_path / "twin")
    write_page(gather([finished, twin], gold=data[0]), tmp_path / "two.html")
    page = visit((tmp_path / "two.html").as_uri()).page
    assert page.locator("#overview tbody tr").count() == 2
    assert page.locator("#figure-utility path.mark-line, #figure-utility .mark-line path").count() == 2
    page.select_option("#by-run", label="twin")
    assert count(page) == 24


@pytest.mark.slow
def test_it_prints_in_black_on_white(visit, address):
    page = visit(address, scheme="dark").page
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator(".filters").is_hidden()
    assert page.pdf(format="A4")[:4] == b"%PDF"
