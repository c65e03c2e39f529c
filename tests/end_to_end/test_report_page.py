"""The report page in a real browser: it draws, switches, fits a telephone, and asks the network for nothing."""

from dataclasses import replace

import pytest
from chromium import ALL_DRAWN, NAMES, Page, chromium_page, find_chromium
from made_up_run import full_metrics, make_facts

from spikingmoe.report.page import build_page, compare_page

pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason=f"no Chromium: none of {', '.join(NAMES)} is installed"
)
WIDTHS = (390, 1280)
PLOTS = 7
LONG_NAME = "blocks.0.moe.experts.0.hidden"  # the longest of the made-up run

#: Words that stick out of their drawing, or out of the window.
CUT_WORDS = """
[...document.querySelectorAll('.drawing svg')].filter(svg => svg.clientWidth).flatMap(svg => {
  const box = svg.getBoundingClientRect(), right = Math.min(box.right, innerWidth);
  return [...svg.querySelectorAll('text')].filter(text => {
    const own = text.getBoundingClientRect();
    return own.width && (own.left < box.left - 1 || own.right > right + 1);
  }).map(text => text.textContent);
}).concat([...document.querySelectorAll('.drawing svg text')].map(t => t.textContent)
  .filter(words => words.endsWith('…')))
"""


NOTHING_CUT = f"({CUT_WORDS.strip()}).length === 0"  # after the last resizing


def mapped():
    cores = [
        {
            "part": part,
            "tile": [0, index],
            "neurons": 100,
            "use": {"neurons": 0.5},
            "blocks": [{"population": LONG_NAME}],
        }
        for index, part in enumerate(("stem", "experts.0", "router"))
    ]
    report = {"chip": "loihi2", "fits": True, "cores": 3, "cores_per_tile": 4, "core_list": cores}
    return {"x.program": report}


@pytest.fixture(scope="module")
def browser():
    with chromium_page() as page:
        yield page


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    path = tmp_path_factory.mktemp("one") / "page.html"
    path.write_text(build_page(make_facts({**full_metrics(), "mapping": mapped()})))
    return path


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    path = tmp_path_factory.mktemp("several") / "page.html"
    facts = make_facts(full_metrics())
    other = make_facts({**full_metrics(), "accuracy": {"test": {"torch": 0.5, "samples": 359}}})
    runs = {"first": facts, "second": other, "dense": replace(make_facts(dense=True), metrics={})}
    path.write_text(compare_page(runs))
    return path


def heading(browser: Page) -> str:
    return browser.evaluate(
        "[...document.querySelectorAll('.run')].filter(r => r.offsetWidth)"
        ".map(r => r.querySelector('h2').textContent).join()"
    )


def press(browser: Page, key: str, code: int) -> None:
    for kind in ("rawKeyDown", "keyUp"):
        browser.call(
            "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code
        )


def click(browser: Page, x: float, y: float) -> None:
    for kind in ("mousePressed", "mouseReleased"):
        browser.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)


@pytest.mark.parametrize("width", WIDTHS)
def test_all_plots_are_drawn_and_fit_without_errors_or_network(browser, one, width):
    browser.events.clear()
    browser.call(
        "Network.emulateNetworkConditions",
        offline=True,
        latency=0,
        downloadThroughput=0,
        uploadThroughput=0,
    )
    browser.open(one, width=width)
    browser.call(
        "Network.emulateNetworkConditions",
        offline=False,
        latency=0,
        downloadThroughput=-1,
        uploadThroughput=-1,
    )
    drawn = browser.evaluate("document.querySelectorAll('.plot[data-state=drawn] svg').length")
    assert drawn == PLOTS
    marks = "[...document.querySelectorAll('.plot svg')].map(s => s.querySelectorAll('.mark-rect path, .mark-symbol path, .mark-rule line').length)"
    assert min(browser.evaluate(marks)) > 0
    browser.wait_for(NOTHING_CUT)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.errors() == []
    assert [u for u in browser.requests() if not u.startswith(("file:", "data:"))] == []


def test_the_mouse_switches_runs_and_draws_their_plots(browser, several):
    browser.events.clear()
    browser.open(several, width=390)
    assert heading(browser) == "first"
    browser.evaluate("document.querySelector('.runnames').scrollIntoView()")
    for i, name in ((1, "second"), (2, "dense"), (0, "first")):
        at = browser.evaluate(
            f"(b => ({{x: b.x + b.width / 2, y: b.y + b.height / 2}}))(document.querySelector('[for=run{i}]').getBoundingClientRect())"
        )
        click(browser, at["x"], at["y"])
        assert heading(browser) == name
        browser.wait_for(ALL_DRAWN)
        browser.wait_for(NOTHING_CUT)
    assert browser.errors() == []


def test_the_keyboard_switches_runs(browser, several):
    browser.open(several, width=1280)
    for _ in range(30):
        press(browser, "Tab", 9)
        if browser.evaluate("document.activeElement.className") == "runpick":
            break
    assert browser.evaluate("document.activeElement.id") == "run0"
    press(browser, "ArrowRight", 39)
    assert heading(browser) == "second"
    browser.wait_for(ALL_DRAWN)
    press(browser, "ArrowRight", 39)
    assert heading(browser) == "dense"


def test_a_plot_follows_its_controls(browser, one):
    browser.open(one, width=1280)
    cells = "[...document.querySelectorAll('#maps svg .mark-rect path')].map(p => p.getAttribute('fill')).join()"
    before = browser.evaluate(cells)
    assert before.count("#") == 4  # 2 x 2 tokens, one expert each
    browser.evaluate(
        "(s => {s.value = 1; s.dispatchEvent(new Event('input'))})(document.querySelector('#maps input[type=range]'))"
    )
    browser.wait_for(f"{cells} !== '{before}'")


def test_without_scripts_the_tables_stay(browser, one):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.call("Page.navigate", url=one.as_uri())
        browser.wait_for("document.readyState === 'complete'")
        browser.wait_for("document.querySelector('noscript') !== null")
        text = browser.evaluate("document.body.innerText")
        assert "Scripts are off, so the interactive plots are not drawn" in text
        assert browser.evaluate("document.querySelectorAll('.drawing svg').length") == 0
        browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        for words in ("reference fixed point (all)", "The 2 values of this plot", "97.50"):
            assert words in browser.evaluate("document.body.innerText"), words
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
