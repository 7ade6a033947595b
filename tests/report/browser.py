"""A real browser, Debian's chromium without a window, that looks at a page as a reader would and tells what it saw."""

import html
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

PROGRAM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
needs_browser = pytest.mark.skipif(PROGRAM is None, reason="needs chromium, which .ci/run installs on Debian as root")
# what a headless start needs in a container, and keeps it from asking its maker for anything
OPTIONS = (
    "--headless", "--hide-scrollbars", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip
# The page in a frame of the asked width: a window has a least width of its own. What it would load is asked of a copy without its
# policy, which forbids to load anything. Boxes of text count too, which hang over.
HARNESS = """<!doctype html><meta charset=utf-8><link rel=icon href=data:,><style>body{{margin:0}}</style>
<iframe id=page src="/{name}" width={width} height=900 style="border:0"></iframe>
<iframe id=without src="/without.html"></iframe><pre id=seen></pre><script>
onload = () => {{
  const page = document.getElementById("page").contentDocument, all = [...page.querySelectorAll("body *")]
  if ({opened}) page.querySelectorAll("details").forEach(each => each.open = true)
  const named = element => element.tagName + "." + (element.getAttribute("class") || "") + " " + element.textContent.slice(0, 40)
  const shown = all.filter(element => element.checkVisibility() && element.getClientRects().length)
  document.getElementById("seen").textContent = JSON.stringify({{
    asked: document.getElementById("without").contentWindow.performance.getEntriesByType("resource").map(each => each.name),
    width: page.documentElement.scrollWidth,
    beyond: shown.filter(element => element.getBoundingClientRect().right > {width} + 0.5).map(named),
    scrolled: shown.filter(element => element.scrollWidth > element.clientWidth && !["visible", "clip", "hidden"].includes(
      getComputedStyle(element).overflowX)).map(named),
    smallest: Math.min(...shown.filter(element => [...element.childNodes].some(node => node.nodeType == 3 && node.data.trim())
      && !element.closest("svg")).map(element => parseFloat(getComputedStyle(element).fontSize))),
    smallest_on_paper: Math.min(...shown.filter(element => element.tagName == "text").map(element =>
      3.6 * element.ownerSVGElement.getBoundingClientRect().width / element.ownerSVGElement.viewBox.baseVal.width)),
    sheets: page.querySelectorAll(".leads").length,
    open_sheets: [...page.querySelectorAll(".leads")].filter(element => element.checkVisibility()).length,
    across: page.querySelector(".leads") ? [...page.querySelector(".leads").children].filter((each, at, row) =>
      Math.abs(each.getBoundingClientRect().top - row[0].getBoundingClientRect().top) < 1).length : 0,
  }})
}}
</script>"""


@dataclass(frozen=True)
class Seen:
    """log: what the browser's console says; asked: addresses of whatever the page would load; facts: what else HARNESS finds."""

    log: list[str]
    asked: list[str]
    facts: dict


def look(page: Path, width: int, opened: bool = False) -> Seen:
    """Open a page so many pixels wide; opened: with what is folded away unfolded."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(page, folder)
        (Path(folder) / "harness.html").write_text(HARNESS.format(name=page.name, width=width, opened=json.dumps(opened)), "utf-8")
        without = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text("utf-8"))
        (Path(folder) / "without.html").write_text(without, "utf-8")
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            address = f"http://127.0.0.1:{server.server_port}/harness.html"
            done = run("--dump-dom", "--enable-logging=stderr", "--v=0", "--window-size=1400,1000", address)
        finally:
            server.shutdown()
            server.server_close()
    log = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    found = re.search(r'<pre id="seen">(.+?)</pre>', done.stdout)
    assert found, f"the page did not load: {done.stderr[-2000:]}"
    facts = json.loads(html.unescape(found[1]))
    return Seen(log, facts.pop("asked"), facts)


def print_pdf(page: Path, out: Path) -> bytes:
    run("--no-pdf-header-footer", f"--print-to-pdf={out}", page.resolve().as_uri())
    return out.read_bytes()


def run(*words: str) -> subprocess.CompletedProcess:
    with tempfile.TemporaryDirectory() as profile:
        command = [PROGRAM, *OPTIONS, f"--user-data-dir={profile}", *words]
        environment = {**os.environ, "HOME": profile}
        return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *given) -> None:
        pass
