"""The page, in a real headless Chromium: live figures, light and dark, a telephone, the keyboard, a fleet. Screenshots are kept
in docs/ (`python tests/observe/test_page.py` takes them anew).
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import random
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, sync_playwright

from mcserver.observe import open_observer
from mcserver.observe.http import Observer
from mcserver.testing import Fleet, Server
from mcserver.testing.host import Host

ROOT = Path(__file__).parent.parent.parent
WAIT_SECONDS = 15  # nothing here takes so long
PHONE = {"width": 360, "height": 740}


UNNAMED = """() => [...document.querySelectorAll('button, [role=img], [role=region]')]
    .filter(e => !e.textContent.trim() && !e.getAttribute('aria-label')).length"""
CONTRAST = """() => {
    const linear = v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
    const light = c => { const [r, g, b] = c.match(/[0-9.]+/g).map(linear); return .2126 * r + .7152 * g + .0722 * b; };
    const back = light(getComputedStyle(document.querySelector('.card')).backgroundColor);
    const texts = [...document.querySelectorAll('.big, .note, h2, #status, dt, th button')];
    return Math.min(...texts.map(e => {
        const front = light(getComputedStyle(e).color);
        return (Math.max(front, back) + .05) / (Math.min(front, back) + .05);
    }));
}"""
COUNT_DOTS = """() => {
    window.dots = 0;
    const count = all => { for (const m of all) for (const n of m.addedNodes) if (n.className === 'dot') window.dots++; };
    new MutationObserver(count).observe(document.querySelector('#lanes'), { subtree: true, childList: true });
}"""


class Shown:
    """A server of this process with its page."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.host = Host.join()
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        listener.setblocking(False)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        self.observer: Observer = self.host.wait(self._start(listener))

    async def _start(self, listener: socket.socket) -> Observer:
        observer = open_observer(listener, (), self.server.admin.context)
        await observer.start(self.server.address)
        return observer

    def close(self) -> None:
        self.host.wait(self._stop())
        self.host.leave()

    async def _stop(self) -> None:
        self.observer.close()
        await asyncio.sleep(0.01)


class Load(threading.Thread):
    """Gets of keys some of which are asked for much more often, and a set after each miss, until it is told to stop."""

    def __init__(self, server: Server, batch: int = 20) -> None:
        """batch: gets in a hundredth of a second."""
        super().__init__(daemon=True)
        self._server = server
        self._batch = batch
        self._end = threading.Event()

    def run(self) -> None:
        chance = random.Random(1)
        while not self._end.wait(0.01):
            for _ in range(self._batch):
                number = int(chance.paretovariate(0.35)) % 30011
                key = f"key:{number}"
                if self._server.ask(b"get %s\r\n" % key.encode()) == b"END\r\n":
                    self._server[key] = b"x" * (50 + number * 37 % 5000)

    def stop(self) -> None:
        self._end.set()
        self.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        program = shutil.which("chromium")
        assert program, "apt-get install chromium"
        found = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def shown(memcached_factory: Any) -> Iterator[Shown]:
    page = Shown(memcached_factory("-m", "4", "-I", "8k"))
    load = Load(page.server)
    load.start()
    yield page
    load.stop()
    page.close()


@contextlib.contextmanager
def opened(browser: Browser, url: str, **context: Any) -> Iterator[Page]:
    """A page without an error of any kind and without a request to elsewhere."""
    page = browser.new_page(**context)
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text) if message.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith((url, "data:")) else wrong.append(request.url))
    page.goto(url)
    yield page
    page.close()
    assert wrong == []


def until(page: Page, script: str, argument: object = None) -> None:
    """Until the script is true; the page's own policy forbids playwright's way of waiting for it."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not page.evaluate(script, argument):
        assert time.monotonic() < deadline, f"{script}: {page.locator('body').inner_text()[:300]}"
        page.wait_for_timeout(50)


def live(page: Page) -> None:
    """Until it has shown rates."""
    until(page, "document.querySelector('#status').textContent === 'live'")
    until(page, "document.querySelectorAll('.big')[1].textContent.match(/[0-9]/)")


def colour(page: Page) -> str:
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


@pytest.mark.slow
def test_the_page_is_live(browser: Browser, shown: Shown) -> None:
    with opened(browser, shown.url, viewport={"width": 1200, "height": 900}) as page:
        live(page)
        tiles = page.locator("#tiles section")
        assert tiles.count() == 8
        assert "%" in tiles.nth(0).locator(".big").inner_text()
        assert page.locator("#classes tbody tr").count() > 3
        until(page, "document.querySelectorAll('.big')[2].textContent.match(/[µm]s/)")
        before = page.locator("#about").inner_text()
        until(page, "text => document.querySelector('#about').textContent !== text", before)
        assert page.locator("#fleet").is_hidden()
        until(page, "document.querySelectorAll('#curve circle').length === 5")
        assert "Hit ratio over memory:" in str(page.locator("#curve").get_attribute("aria-label"))


@pytest.mark.slow
def test_keyboard_and_screen_reader(browser: Browser, shown: Shown) -> None:
    with opened(browser, shown.url, viewport={"width": 1200, "height": 900}) as page:
        live(page)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the figures"
        reached = set()
        for _ in range(16):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.textContent"))
        assert {"Pause", "Theme: system", "Class", "Items", "Evicted"} <= reached
        page.get_by_role("button", name="Pages", exact=True).focus()
        page.keyboard.press("Enter")
        assert page.locator("th[aria-sort=descending]").inner_text().startswith("Pages")
        pages = [int(text) for text in page.locator("#classes tbody td:nth-child(3)").all_inner_texts()]
        assert pages == sorted(pages, reverse=True)
        page.keyboard.press("p")
        assert page.locator("#pause").get_attribute("aria-pressed") == "true"
        assert page.locator("#status").inner_text() == "paused"
        page.keyboard.press("p")
        live(page)
        unnamed = page.evaluate(UNNAMED)
        assert unnamed == 0


@pytest.mark.slow
def test_light_dark_and_their_contrast(browser: Browser, shown: Shown) -> None:
    seen = {}
    for scheme in ("light", "dark"):
        with opened(browser, shown.url, color_scheme=scheme) as page:
            live(page)
            seen[scheme] = colour(page)
            assert page.evaluate(CONTRAST) >= 4.5  # WCAG AA
            page.keyboard.press("t")
            assert colour(page) == seen["light"]
            page.keyboard.press("t")
            page.reload()
            live(page)
            assert page.locator("#theme").inner_text() == "Theme: dark"  # it is remembered
            assert page.evaluate(CONTRAST) >= 4.5
    assert seen["light"] != seen["dark"]


@pytest.mark.slow
def test_it_fits_on_a_telephone(browser: Browser, shown: Shown) -> None:
    with opened(browser, shown.url, viewport=PHONE, is_mobile=True, has_touch=True) as page:
        live(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        for box in page.locator("header button").all():
            place = box.bounding_box()
            assert place is not None
            assert place["height"] >= 24
        page.locator("#pause").tap()
        assert page.locator("#status").inner_text() == "paused"


@pytest.mark.slow
def test_an_empty_server(browser: Browser, memcached_factory: Any) -> None:
    with contextlib.closing(Shown(memcached_factory())) as shown, opened(browser, shown.url) as page:
        live(page)
        assert page.locator("#classes tbody").inner_text().startswith("Nothing is stored yet")
        assert page.locator("#curve").is_hidden()  # no hole where nothing can be drawn
        shown.server["a"] = b"1"
        until(page, "document.querySelectorAll('#classes tbody td').length > 5")


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 768, 1440])
def test_two_hundred_members_of_hostile_names(browser: Browser, memcached_fleet: Any, width: int) -> None:
    """A member's name is another server's to choose."""
    names = ["<img src=x onerror=document.title='taken'>", "x" * 64, "</script><b>", "\u202egnp.exe", "a\nb"]
    fleet = memcached_fleet(1)
    with contextlib.closing(Shown(fleet[0])) as shown:
        connection = http.client.HTTPConnection(shown.url.removeprefix("http://").removesuffix("/"))
        connection.request("GET", "/figures.json")
        figures = json.loads(connection.getresponse().read())
        connection.close()
        one = figures["fleet"]["members"][0]
        figures["fleet"]["members"] = [
            {**one, "name": f"{names[number % len(names)]}{number}", "self": False, "sequence": number}
            for number in range(200)
        ]
        with opened(browser, shown.url, viewport={"width": width, "height": 900}) as page:
            page.route("**/figures.json", lambda route: route.fulfill(json=figures))
            until(page, "document.querySelectorAll('.lane').length === 200")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.title() != "taken"
            assert page.locator("#lanes img, #lanes b, #lanes script").count() == 0


@pytest.mark.slow
def test_what_was_under_way_does_not_end_a_pause(browser: Browser, shown: Shown) -> None:
    with opened(browser, shown.url) as page:
        live(page)
        held: list[Route] = []

        def hold(route: Route) -> None:
            held.append(route)

        page.route("**/figures.json", hold)
        deadline = time.monotonic() + WAIT_SECONDS
        while not held:
            assert time.monotonic() < deadline
            page.wait_for_timeout(20)
        page.keyboard.press("p")
        with page.expect_event("requestfinished"):
            held[0].continue_()
        page.wait_for_timeout(200)
        assert page.locator("#status").inner_text() == "paused"


@pytest.mark.slow
def test_it_says_when_nobody_answers(browser: Browser, memcached_factory: Any) -> None:
    shown = Shown(memcached_factory())
    page = browser.new_page()
    page.goto(shown.url)
    until(page, "document.querySelector('#status').textContent === 'live'")
    shown.close()
    until(page, "document.querySelector('#status').textContent === 'no answer'")
    page.close()


@pytest.mark.slow
def test_a_fleet_has_a_lane_for_each_member(browser: Browser, memcached_fleet: Any) -> None:
    fleet: Fleet = memcached_fleet(3)
    shown = Shown(fleet[0])
    try:
        with opened(browser, shown.url, viewport={"width": 1200, "height": 900}) as page:
            live(page)
            assert page.locator("#fleet").is_visible()
            assert page.locator(".lane").count() == 3
            assert page.locator(".lane .name", has_text="(leader)").count() == 1
            assert "proved" in page.locator("#fleet-facts").inner_text()
            fleet[0].ask(b"set a 0 0 1\r\n1\r\n")
            page.evaluate(COUNT_DOTS)
            told(fleet[1], b"a")
            fleet.settle()
            until(page, "window.dots > 0")  # a delete travels
            fleet.partition(0)
            fleet.until_stale(0)
            until(page, "document.querySelector('#status').textContent === 'stale'")
            assert "cut off by the test" in page.locator("#fleet-facts").inner_text()
            connection = http.client.HTTPConnection(shown.url.split("/")[2])
            connection.request("GET", "/readyz")
            with contextlib.closing(connection), connection.getresponse() as answer:
                assert answer.status == 503
            fleet.heal()
            fleet.settle()
            until(page, "document.querySelector('#status').textContent === 'live'")
    finally:
        shown.close()


def told(server: Server, key: bytes) -> None:
    """A delete by a client of this server."""
    with socket.create_connection(server.address, 5) as connection:
        connection.sendall(b"delete %s\r\n" % key)
        connection.recv(100)


def take_screenshots(folder: Path) -> None:
    """page-light.png and page-dark.png of a fleet under load, page-phone.png."""
    with Fleet(3, "-m", "8", "-I", "64k") as fleet, sync_playwright() as playwright:
        shown, load = Shown(fleet[0]), Load(fleet[0], 60)
        load.start()
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        contexts: dict[str, dict[str, Any]] = {
            "light": {"viewport": {"width": 1180, "height": 800}, "color_scheme": "light"},
            "dark": {"viewport": {"width": 1180, "height": 800}, "color_scheme": "dark"},
            "phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark", "device_scale_factor": 2},
        }
        for name, context in contexts.items():
            page = browser.new_page(**context)
            page.goto(shown.url)
            live(page)
            for number in range(12):
                told(fleet[number % 3], b"key:%d" % number)
                page.wait_for_timeout(1000)
            page.screenshot(path=folder / f"page-{name}.png", full_page=name != "phone")
            page.close()
        browser.close()
        load.stop()
        shown.close()


if __name__ == "__main__":
    take_screenshots(ROOT / "docs" if len(sys.argv) < 2 else Path(sys.argv[1]))
