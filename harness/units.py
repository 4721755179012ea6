"""Parse and format durations and sizes. Inside the harness: seconds and bytes, always."""

import re

from harness.errors import InputError

_DURATION_UNITS = {
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86400.0,
}
_SIZE_UNITS = {
    "": 1,
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}
_BANDWIDTH_UNITS = {"Gbit": 10**9, "Mbit": 10**6, "kbit": 10**3}
_RATE_UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0}
_RATE = re.compile(r"\s*([0-9]*\.?[0-9]+)\s*/\s*(s|min|h)\s*")
_SHARE = re.compile(r"\s*([0-9]*\.?[0-9]+)\s*%\s*")
_NUMBER_AND_UNIT = re.compile(r"\s*([0-9]*\.?[0-9]+)\s*([A-Za-z]*)\s*")


def parse_duration(text: str) -> float:
    """Seconds from ``"250ms"``, ``"10s"``, ``"10m"``, ``"1h"``, ``"30d"`` or bare seconds.

    Raises InputError for anything else; zero is allowed, a negative duration is not.
    """
    match = _NUMBER_AND_UNIT.fullmatch(text)
    unit = (match[2] or "s") if match else ""
    if match is None or unit not in _DURATION_UNITS:
        raise InputError(f"{text!r} is not a duration", hint='write "250ms", "10s", "5m" or "1h"')
    return float(match[1]) * _DURATION_UNITS[unit]


def parse_size(text: str) -> int:
    """Bytes from ``"128MiB"``, ``"2GB"`` or a bare number of bytes; raises InputError."""
    match = _NUMBER_AND_UNIT.fullmatch(text)
    if match is None or match[2] not in _SIZE_UNITS:
        raise InputError(f"{text!r} is not a size", hint='write "128MiB", "2GB" or bytes')
    return round(float(match[1]) * _SIZE_UNITS[match[2]])


def parse_share(text: str) -> float:
    """A share from ``"2%"`` or ``"0.5 %"``; raises InputError for anything else."""
    match = _SHARE.fullmatch(text)
    if match is None:
        raise InputError(f"{text!r} is not a share", hint='write "2%"')
    return float(match[1]) / 100


def parse_bandwidth(text: str) -> int:
    """Bits per second from ``"100Mbit"`` or ``"1Gbit"``; raises InputError."""
    match = _NUMBER_AND_UNIT.fullmatch(text)
    found = round(float(match[1]) * _BANDWIDTH_UNITS.get(match[2], 0)) if match else 0
    if found <= 0:
        raise InputError(f"{text!r} is not a bandwidth", hint='write "100Mbit" or "1Gbit"')
    return found


def format_rate(rate: float) -> str:
    """``2/s``, ``30/min`` or ``12/h``: starts per second in the unit that makes it one or more."""
    for unit, seconds in (("s", 1), ("min", 60)):
        if rate * seconds >= 1:
            return f"{rate * seconds:g}/{unit}"
    return f"{rate * 3600:g}/h"


def parse_rate(text: str) -> float:
    """Events per second from ``"2/s"`` or ``"30/min"``; raises InputError for anything else."""
    match = _RATE.fullmatch(text)
    found = float(match[1]) / _RATE_UNITS[match[2]] if match else 0.0
    if found <= 0:
        raise InputError(f"{text!r} is not a rate", hint='write "2/s" or "30/min"')
    return found


def format_bandwidth(bits: int) -> str:
    """Bits per second as `parse_bandwidth` reads them: ``100Mbit``, ``1Gbit``."""
    unit = next((unit for unit, factor in _BANDWIDTH_UNITS.items() if bits >= factor), "kbit")
    return f"{bits / _BANDWIDTH_UNITS[unit]:g}{unit}"


def format_size(size: int) -> str:
    """Bytes as `parse_size` reads them, exactly: ``512MiB``."""
    units = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))
    name, factor = next(((n, f) for n, f in units if size and size % f == 0), ("B", 1))
    return f"{size // factor}{name}"


def format_seconds(seconds: float) -> str:
    """A duration with three significant digits and the unit that suits it: ``1.23 ms``."""
    magnitude = abs(seconds)
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if magnitude >= 2 * length:
            digits = ".0f" if magnitude >= 999.5 * length else ".3g"  # never a power of ten
            return f"{seconds / length:{digits}} {unit}"
    if magnitude >= 0.9995:  # what would round to 1000 ms
        return f"{seconds:.3g} s"
    if magnitude >= 0.9995e-3:
        return f"{seconds * 1e3:.3g} ms"
    if magnitude == 0:
        return "0 s"
    return f"{seconds * 1e6:.3g} µs"


def find_seconds_unit(seconds: float) -> tuple[float, str]:
    """The unit that suits a duration, as in `format_seconds`, with its length in seconds."""
    units = ((2 * 86400.0, 86400.0, "d"), (7200.0, 3600.0, "h"), (120.0, 60.0, "min"),
             (0.9995, 1.0, "s"), (0.9995e-3, 1e-3, "ms"))  # fmt: skip
    found = (each[1:] for each in units if abs(seconds) >= each[0])
    return next(found, (1.0, "s") if seconds == 0 else (1e-6, "µs"))


def format_age(seconds: float) -> str:
    """A time span in its largest unit: ``3 d``, ``5 h``, ``12 min``; a shorter one is ``now``."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return "now"


def format_bytes(size: float) -> str:
    """A size with three significant digits in binary units: ``12.5 MiB``."""
    magnitude = abs(size)
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if magnitude >= factor:
            digits = f"{size / factor:.3g}" if magnitude < 1000 * factor else f"{size / factor:.0f}"
            return f"{digits} {unit}"
    return f"{size:.0f} B"


def format_value(value: float, unit: str) -> str:
    """``value`` in the words that suit its ``unit`` (``s``, ``B`` or another)."""
    if unit == "s":
        return format_seconds(value)
    if unit == "B":
        return format_bytes(value)
    return f"{value:.4g} {unit}".strip()
