"""Where the cache is."""

from pathlib import Path

import pytest

from harness.paths import cache_dir


@pytest.mark.parametrize("variable", ["HARNESS_CACHE", "XDG_CACHE_HOME"])
def test_links_on_the_way_to_the_cache_are_followed(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """runc refuses a root file system below a link."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.delenv("HARNESS_CACHE", raising=False)
    monkeypatch.setenv(variable, str(tmp_path / "link"))
    below = "" if variable == "HARNESS_CACHE" else "container-or-vm"
    assert cache_dir() == tmp_path / "real" / below
