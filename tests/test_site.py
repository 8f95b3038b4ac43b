"""The built site in a real browser: `python -m sphinx -W -n docs build/site`, then this file.

Skipped where the site is not built, or Playwright or a Chromium is not installed.
"""

import functools
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
SITE = Path(__file__).parents[1] / "build" / "site"
if not (SITE / "index.html").exists():
    pytest.skip("the site is not built", allow_module_level=True)
PAGES = sorted(
    str(path.relative_to(SITE)) for path in (*SITE.glob("*.html"), *SITE.glob("api/*.html"))
)
WIDTHS = {"desktop": 1280, "phone": 390}


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def address():
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(SITE)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as running:
        installed = shutil.which("chromium") or shutil.which("google-chrome")
        if not (Path(running.chromium.executable_path).exists() or installed):
            pytest.skip("no Chromium: python -m playwright install chromium")
        own = Path(running.chromium.executable_path).exists()
        options = {} if own else {"executable_path": installed}
        started = running.chromium.launch(args=["--no-sandbox"], **options)
        yield started
        started.close()


@pytest.fixture
def tab(browser):
    """A tab, and what its console complains of; nothing outside is loaded."""
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.route("**/*", lambda route: route.continue_() if inside(route) else route.abort())
    page.complaints = []
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("console", lambda message: complain(page, message))
    yield page
    context.close()


def inside(route):
    return route.request.url.startswith("http://127.0.0.1")


def complain(page, message):
    if message.type == "error" and "ERR_FAILED" not in message.text:
        page.complaints.append(message.text)


@pytest.mark.parametrize("name", PAGES)
def test_page(tab, address, name):
    """No errors, every picture loads, and nothing is wider than a phone."""
    for width in WIDTHS.values():
        tab.set_viewport_size({"width": width, "height": 900})
        tab.goto(f"{address}/{name}")
        wide = tab.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 1, f"{wide} pixels wider than {width}"
    pictures = "Array.from(document.images).filter(i => !i.complete || !i.naturalWidth)"
    assert tab.evaluate(f"{pictures}.map(i => i.src)") == []
    assert tab.complaints == []


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("jm.recurrent.lstm", "api/recurrent.html#jaxmask.recurrent.lstm"),
        ("pad_sequences", "api/batching.html#jaxmask.batching.pad_sequences"),
        ("burn-in", "recipes_time.html"),
    ],
)
def test_search(tab, address, asked, found):
    tab.goto(f"{address}/search.html?q={asked}")
    tab.wait_for_selector("#search-results li a", timeout=20_000)
    tab.wait_for_function(f"document.querySelector('#search-results a[href*=\"{found}\"]')")


def test_code_can_be_copied(tab, address):
    tab.goto(f"{address}/start.html")
    block = tab.locator("div.highlight").nth(1)  # after the command that installs
    block.hover()
    block.locator("button.copybtn").click()
    copied = tab.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("import jax")


def test_dark_and_light(tab, address):
    tab.goto(f"{address}/start.html")
    colours = []
    for scheme in ("light", "dark"):
        tab.emulate_media(color_scheme=scheme)
        colours.append(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(set(colours)) == 2
