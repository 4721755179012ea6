"""A report as PDF, printed by a real browser."""

import shutil
from pathlib import Path

import pytest

from harness.cli import printing
from harness.errors import HostError


def test_the_same_page_gives_the_same_bytes(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<!doctype html><title>Startup</title><h1>Ready after 2 ms</h1>")
    for name in ("one.pdf", "two.pdf"):
        printing.print_page(page, tmp_path / name)
    first = (tmp_path / "one.pdf").read_bytes()
    assert first.startswith(b"%PDF-")
    assert first == (tmp_path / "two.pdf").read_bytes()


def test_without_a_browser_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(printing, "BROWSERS", ("no-such-browser",))
    with pytest.raises(HostError, match="install the package chromium"):
        printing.require_browser()


def test_the_browser_gets_a_profile_of_its_own(tmp_path: Path) -> None:
    words = printing.build_print("chromium", tmp_path / "a.html", tmp_path / "a.pdf", tmp_path)
    assert f"--user-data-dir={tmp_path}/profile" in words
    assert words[-1] == f"file://{tmp_path}/a.html"
    assert shutil.which(words[0])
