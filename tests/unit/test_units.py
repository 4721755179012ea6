"""Durations and sizes, in and out."""

import pytest

from harness.errors import InputError
from harness.units import format_bytes, format_seconds, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"), [("250ms", 0.25), ("10s", 10), ("5m", 300), ("1h", 3600), ("2", 2)]
)
def test_durations_are_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(("text", "size"), [("128MiB", 128 << 20), ("2GB", 2 * 10**9), ("7", 7)])
def test_sizes_are_bytes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "fast", "-1s", "1 fortnight", "1..2s", "nan"])
def test_what_is_neither_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_duration(text)
    with pytest.raises(InputError):
        parse_size(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.9999, "1 s"),
        (0.00099999, "1 ms"),
        (0.5, "500 ms"),
        (1.234, "1.23 s"),
        (150, "2.5 min"),
        (3600, "60 min"),
        (7300, "2.03 h"),
        (-1e6, "-11.6 d"),
        (86400 * 16_700, "16700 d"),
        (2e-6, "2 µs"),
        (0, "0 s"),
    ],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_sizes_read_well() -> None:
    assert format_bytes(1536) == "1.5 KiB"
    assert format_bytes(1023 * 2**20) == "1023 MiB"
    assert format_bytes(12) == "12 B"
