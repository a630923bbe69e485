"""The page in a real Chromium: what people see and do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastgen.view.export import export
from tests.view.folders import done, failed, folder, image, scenes
from tests.view.test_run_rows import append, live  # noqa: F401

MANY = 100_000
HOSTILE = '<img src=x onerror="window.hacked = 1"><script>window.hacked = 2</script>'


class Page:
    """The page as somebody uses it: keys, clicks, and what is in sight."""

    def __init__(self, browser):
        self.browser = browser

    def open(self, url):
        self.browser.get(url)
        self.browser.execute_script("try { localStorage.clear() } catch {}")
        self.browser.get(url)
        self.until("document.querySelector('article')")
        return self

    def js(self, expression):
        return self.browser.execute_script(f"return {expression}")

    def until(self, expression):
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.browser, 60, 0.05).until(lambda _: self.js(expression), expression)

    def keys(self, *keys):
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.browser, duration=0).send_keys(*keys).perform()

    def named(self, name):
        from selenium.webdriver.common.keys import Keys

        return getattr(Keys, name)

    def click(self, selector):
        self.browser.execute_script("document.querySelector(arguments[0]).click()", selector)

    def choose(self, id, value):
        self.put(id, value, "change")

    def put(self, id, value, event):
        script = "const e = document.getElementById(arguments[0]); e.value = arguments[1]; "
        self.browser.execute_script(f"{script} e.dispatchEvent(new Event(arguments[2]))", id, value, event)

    def search(self, text):
        self.put("search", text, "input")

    @property
    def shown(self):
        """How many rows the filters leave."""
        return int(self.js("document.getElementById('list').dataset.shown"))

    @property
    def texts(self):
        """The texts of the cards in sight, in their order, once they are drawn."""
        self.browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
        cards = self.js(
            "[...document.querySelectorAll('article')].map(a => [a.dataset.index, a.querySelector('.text').innerText])"
        )
        return [text for _, text in sorted(cards, key=lambda card: int(card[0]))]

    def complaints(self):
        """What the browser's console has, such as what its policy forbids."""
        return [entry["message"] for entry in self.browser.get_log("browser") if "favicon" not in entry["message"]]


@pytest.fixture
def page(browser):
    page = Page(browser)
    page.complaints()
    yield page
    assert not [text for text in page.complaints() if "404" not in text and "ERR_CONNECTION_REFUSED" not in text]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of the same rows with other settings, and a run of edits."""
    place = tmp_path_factory.mktemp("runs")
    one, two = scenes(place / "one", steps=4), scenes(place / "two", steps=28)
    rows = [json.loads(line) for line in (one / "results.jsonl").read_text().splitlines()]
    rows[1]["prompt"] = HOSTILE
    rows[4]["fastgen"] |= {"cost_usd": 0.5, "model": "large", "width": 96}
    rows[6] = rows[6] | failed("row-6", "input", f"row 7: {HOSTILE}")
    folder(one, rows, steps=4)
    image(place / "before.png", "white", (64, 64)), image(place / "edits/images/after.png", "black", (64, 64))
    edit = {"id": "e", "image": "before.png", "prompt": "night", "edited_images": ["images/after.png"]}
    edits = folder(place / "edits", [edit | {"fastgen": {"id": "e", "status": "done", "model": "m"}}], "edit")
    return {"one": one, "two": two, "edits": edits}


@pytest.fixture(scope="module")
def address(serve, runs):
    with serve(runs["one"], runs["two"]) as url:
        yield url


def test_the_grid_shows_images_with_their_prompts(page, address):
    page.open(address)
    assert page.shown == 8 and page.texts[0] == "a red fox number 0"
    assert page.until("document.querySelector('article img.here')?.naturalWidth") == 48
    assert page.js("document.querySelector('article .meta').textContent") == "48 × 48  ·  0.5 s"
    assert "one" in page.browser.title


def test_texts_of_rows_are_texts(page, address):
    page.open(address)
    page.until("document.querySelectorAll('article').length == 8")
    assert HOSTILE in page.texts and page.js("window.hacked") is None
    page.keys(page.named("ARROW_RIGHT"), page.named("ARROW_RIGHT"), page.named("ENTER"))
    page.until("document.querySelector('#viewer .prose')?.textContent.includes('onerror')")
    assert page.js("window.hacked") is None and not page.js("document.querySelector('.prose img')")
    page.keys(page.named("ESCAPE"), "f")
    page.until("document.querySelector('.line')")
    assert page.js("window.hacked") is None


def test_filters(page, address):
    page.open(address)
    for text, count in (("green FOX", 1), ("number", 7), ("declined", 1), ("row-5", 1), ("zebra", 0), ("", 8)):
        page.search(text)
        assert page.shown == count, text
    page.search("zebra")
    assert "No row is like that" in page.js("document.getElementById('empty').textContent")
    page.search("")
    page.choose("size", "96x48"), page.choose("model", "large")
    assert page.texts == ["a red fox number 4"]
    page.keys(page.named("ESCAPE"))
    assert page.shown == 8
    page.put("cost-from", "0.1", "input")
    assert page.texts == ["a red fox number 4"]


def test_failed_rows_have_their_reasons(page, address):
    page.open(address)
    page.keys("f")
    assert page.texts == ["declined by the model", f"row 7: {HOSTILE}"]
    assert page.js("[...document.querySelectorAll('.badge')].map(b => b.textContent)") == ["refused", "input"]
    page.choose("kind", "refused")
    assert page.shown == 1
    page.keys(page.named("ENTER"))
    assert page.until("document.querySelector('#viewer .error')?.textContent") == "declined by the model"
    page.keys(page.named("ESCAPE"))


def test_the_same_row_in_two_runs(page, address):
    page.open(address)
    page.keys("c")
    page.until("document.querySelectorAll('article.compared').length")
    assert page.shown == 8
    assert "steps 4" in page.js("document.getElementById('heading').textContent")
    assert page.js("document.querySelector('article.compared').querySelectorAll('.well').length") == 2
    page.keys(page.named("ENTER"))
    page.until("document.querySelector('.box.here .left')?.naturalWidth")
    assert page.js("[...document.querySelectorAll('.box .word')].map(w => w.textContent)") == ["one", "two"]
    page.keys("2")
    page.until("document.querySelector('aside .meta').textContent.endsWith('two')")
    page.keys(page.named("ESCAPE"), "f")
    assert page.shown == 2, "a group counts if one of its rows does"


def test_before_and_after_with_a_slider(page, serve, runs):
    with serve(runs["edits"]) as url:
        page.open(url)
        page.keys(page.named("ENTER"))
        page.until("document.querySelector('.box.here .left')?.naturalWidth")
        assert page.js("[...document.querySelectorAll('.box .word')].map(w => w.textContent)") == ["before", "after"]
        handle = page.browser.find_element("css selector", ".slider")
        assert page.js("getComputedStyle(document.querySelector('.left')).clipPath") == "inset(0px 50% 0px 0px)"
        handle.send_keys(page.named("SHIFT") + page.named("ARROW_RIGHT"))
        assert page.js("getComputedStyle(document.querySelector('.left')).clipPath") == "inset(0px 45% 0px 0px)"
        page.keys("b")
        assert not page.js("document.querySelector('.slider')") and "after" not in page.js(
            "document.querySelector('.box').textContent"
        )
        page.keys("z")
        assert page.js("document.querySelector('.frame').classList.contains('zoomed')")
        page.keys(page.named("ESCAPE"))
        assert page.js("document.getElementById('viewer').hidden")


def saved(page, downloads):
    path = downloads / "picks.jsonl"
    path.unlink(missing_ok=True)
    page.keys("s")
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(page.browser, 30, 0.05).until(lambda _: path.exists() and path.stat().st_size)
    return [json.loads(line)["fastgen"]["id"] for line in path.read_text().splitlines()]


def test_picked_rows_are_saved_as_a_file_of_rows(page, address, downloads):
    page.open(address)
    right = page.named("ARROW_RIGHT")
    page.keys(right, "p", right, right, "p")
    page.click("article[data-index='5'] .pick")
    page.keys("p"), page.keys("p")
    assert page.js("document.getElementById('save').textContent") == "Save 3 picks"
    assert saved(page, downloads) == ["row-0", "row-2", "row-5"]
    page.keys("k")
    assert page.shown == 3
    page.browser.refresh()
    page.until("document.getElementById('save').textContent == 'Save 3 picks'")


def test_keys_and_light(page, address):
    page.open(address)
    page.keys("?")
    assert "before/after" in page.js("document.getElementById('keys').textContent")
    page.keys(page.named("ESCAPE"))
    assert page.js("document.getElementById('keys').hidden")
    page.keys("t")
    assert page.js("document.documentElement.dataset.theme") == "dark"
    assert page.js("getComputedStyle(document.body).backgroundColor") == "rgb(22, 22, 23)"
    page.keys("/", "fox", page.named("ENTER"), "d")
    assert page.js("document.getElementById('search').value") == "fox" and page.shown == 5


def test_a_run_at_work_grows(page, serve, live):  # noqa: F811
    image(live / "images/fox_0.png"), image(live / "images/elk_0.png")
    with serve(live) as url:
        page.open(url)
        page.until("document.querySelectorAll('.card').length == 3")
        assert page.js("document.querySelectorAll('.card.pending').length") == 2
        page.js("void (window.before = document.querySelector('.card.done'))")
        append(live, "elk")
        page.until("document.querySelectorAll('.card.done').length == 2")
        assert page.js("window.before.isConnected"), "what did not change is not drawn again"
        page.choose("sort", "arrived")
        assert page.texts == ["a elk", "a owl", "a fox"], "the newest first"


def many(path: Path) -> Path:
    for k in range(16):
        image(path / f"images/{k}.png", (k * 16, 255 - k * 16, 128), (16, 16))
    with_reason = failed("", "refused", "declined")
    rows = []
    for k in range(MANY):
        own = {"id": f"row-{k}", "prompt": f"number {k} of many"}
        rows.append(own | (with_reason if k % 1000 == 999 else done(f"row-{k}", [f"images/{k % 16}.png"])))
        if k % 1000 == 999:
            rows[-1]["fastgen"] = with_reason["fastgen"] | {"id": f"row-{k}"}
    return folder(path, rows)


def test_a_hundred_thousand_rows(page, serve, tmp_path):
    with serve(many(tmp_path / "run")) as url:
        page.open(url)
        page.until(f"fastgen.runs[0].rows.length == {MANY} && document.getElementById('list').dataset.shown == {MANY}")
        assert page.js("document.querySelectorAll('article').length") < 60, "only what is in sight has elements"
        for _ in range(20):  # as somebody who drags the scroll bar
            page.js("void (list.scrollTop += list.scrollHeight / 40)")
            assert page.until("document.querySelectorAll('article').length") < 80
        page.until("document.querySelector('article img.here')")
        middle = int(page.js("document.querySelector('article').dataset.index"))
        assert MANY * 0.4 < middle < MANY * 0.6 and f"number {middle} of many" in page.texts
        page.keys(page.named("END"))
        assert (
            page.until(f"document.querySelector(\"article[data-index='{MANY - 2}']\")")
            and f"number {MANY - 2} of many" in page.texts
        )
        page.search("number 4321")
        assert page.shown == 20  # ids count, too
        page.search(""), page.keys("f")
        assert page.shown == MANY // 1000
        loaded = page.js("performance.getEntriesByType('resource').filter(e => e.name.includes('/thumb/')).length")
        assert loaded < 500, "images that were only passed are not loaded"


def test_an_exported_folder_works_from_the_disk(page, runs, tmp_path, downloads):
    export([runs["one"], runs["two"], runs["edits"]], tmp_path / "page")
    page.open((tmp_path / "page/index.html").as_uri())
    page.until("document.querySelectorAll('article').length == 8")
    assert page.until("document.querySelector('article img.here')?.naturalWidth") == 48
    page.search("orange")
    page.keys(page.named("ARROW_RIGHT"), "p", page.named("ENTER"))
    assert page.until("document.querySelector('.box.here img')?.naturalWidth") == 48
    assert page.js("document.querySelector('aside .prose').textContent") == "a orange fox number 3"
    page.keys(page.named("ESCAPE"))
    assert saved(page, downloads) == ["row-3"]
    page.keys("3", page.named("ESCAPE"), page.named("ENTER"))
    page.until("document.querySelector('.box.here .left')?.naturalWidth == 64")
    assert page.js("window.hacked") is None
