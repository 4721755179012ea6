"""Print a page as PDF, by a browser that is there."""

import os
import re
import tempfile
from pathlib import Path

from harness.errors import HostError
from harness.process import run_command
from harness.system import find_command

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_TIMEOUT = 120.0
_DATE = re.compile(rb"/(CreationDate|ModDate) \(D:\d{14}")
_SAME_DATE = rb"/\1 (D:20000101000000"
_QUIET = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-sync",
    "--no-first-run",
)


def print_page(page: Path, out: Path) -> None:
    """Print the HTML file ``page`` to the PDF file ``out``; the same page gives the same bytes.

    Raises HostError without a browser.
    """
    with tempfile.TemporaryDirectory(prefix=".print-", dir=out.absolute().parent) as folder:
        printed = Path(folder, "page.pdf")
        run_command(build_print(require_browser(), page, printed, Path(folder)), timeout=_TIMEOUT)
        if not printed.exists():
            raise HostError(f"the browser printed no {out.name}", hint="print report.html yourself")
        # The browser writes the time of printing into the file; other bytes keep their places.
        out.write_bytes(_DATE.sub(_SAME_DATE, printed.read_bytes()))


def build_print(browser: str, page: Path, out: Path, profile: Path) -> list[str]:
    """The command line that prints ``page``; root cannot use the browser's own sandbox."""
    return [
        browser,
        "--headless",
        *_QUIET,
        *(["--no-sandbox"] if os.geteuid() == 0 else []),
        f"--user-data-dir={profile / 'profile'}",
        "--no-pdf-header-footer",
        f"--print-to-pdf={out}",
        page.resolve().as_uri(),
    ]


def require_browser() -> str:
    found = next((path for name in BROWSERS if (path := find_command(name))), None)
    if found is None:
        raise HostError(
            "a PDF is printed by Chromium, which is not installed",
            hint="install the package chromium, or print report.html from your browser",
        )
    return found
