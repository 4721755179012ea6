"""The report in Chromium, as a reader sees it: wide or narrow, light, dark or printed.

Playwright drives the Chromium that the system has; axe-core's script comes from a package.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from harness.cli.printing import BROWSERS

_TIMEOUT = 60_000
_HEIGHT = 900


@dataclass(frozen=True, slots=True)
class Look:
    """How a page is looked at. ``media`` is ``light``, ``dark`` or ``print``."""

    width: int
    media: str

    def __str__(self) -> str:
        return f"{self.media} at {self.width} px"


LOOKS = tuple(Look(width, media) for width in (1280, 390) for media in ("light", "dark", "print"))


@dataclass(slots=True)
class Visit:
    """An open page, and what it did meanwhile: addresses asked for, and errors in its console."""

    page: Page
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def look(self, look: Look) -> None:
        """Have the page laid out for ``look``, all of its folds open."""
        scheme = "dark" if look.media == "dark" else "light"
        self.page.emulate_media(
            media="print" if look.media == "print" else "screen",
            color_scheme=scheme,  # type: ignore[arg-type] # a literal, of two
            reduced_motion="reduce",
        )
        self.page.set_viewport_size({"width": look.width, "height": _HEIGHT})
        self.page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")

    def find_violations(self) -> list[str]:
        """What axe-core finds wrong: rule, what it asks for, and where, one line each place."""
        if not self.page.evaluate("'axe' in window"):
            self.page.evaluate(read_axe())
        found = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{rule['id']}: {node['html'][:160]} ({' '.join(node['failureSummary'].split())[:240]})"
            for rule in found["violations"]
            for node in rule["nodes"]
        ]

    def run(self, script: str) -> Any:
        """What a function in JavaScript returns."""
        return self.page.evaluate(script)


@contextmanager
def start_browser() -> Iterator[Browser]:
    """The system's Chromium, ended at the end."""
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    assert browser, "chromium is needed to look at the report"
    with sync_playwright() as driver:
        started = driver.chromium.launch(
            executable_path=browser, chromium_sandbox=False, timeout=_TIMEOUT
        )
        try:
            yield started
        finally:
            started.close()


@contextmanager
def open_page(browser: Browser, path: Path, *, scripts: bool = True) -> Iterator[Visit]:
    """Visit the file ``path``; nothing of one visit is left to the next."""
    context = browser.new_context(java_script_enabled=scripts)
    context.set_default_timeout(_TIMEOUT)
    try:
        visit = Visit(context.new_page())
        visit.page.on("request", lambda request: visit.requests.append(request.url))
        visit.page.on(
            "console",
            lambda said: visit.errors.append(said.text) if said.type == "error" else None,
        )
        visit.page.on("pageerror", lambda error: visit.errors.append(str(error)))
        visit.page.goto(path.as_uri())
        yield visit
    finally:
        context.close()


def read_axe() -> str:
    return (files("axe_playwright_python") / "axe.min.js").read_text("utf-8")
