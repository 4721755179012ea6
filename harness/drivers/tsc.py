"""The frequency of the host's time stamp counter, which an emulated guest counts by too."""

import ctypes
import functools
import mmap
import platform
import time

_SPAN_S = 0.02
_TRIES = 20
# rdtsc; shl rdx, 32; or rax, rdx; ret
_READ_COUNTER = bytes.fromhex("0f31 48c1e220 4809d0 c3")


@functools.cache
def measure_tsc_khz() -> int | None:
    """Counts a millisecond, good to some parts in a million; None where it cannot be read."""
    if platform.machine() != "x86_64":
        return None
    try:
        code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:  # a host that lets nobody make code
        return None
    with code:
        code.write(_READ_COUNTER)
        anchor = ctypes.c_char.from_buffer(code)
        read = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(anchor))
        first_ns, first = _read_both(read)
        time.sleep(_SPAN_S)
        last_ns, last = _read_both(read)
        del read, anchor
    return round((last - first) / (last_ns - first_ns) * 1e6)


def _read_both(read: "ctypes._CFunctionType") -> tuple[float, int]:
    """(clock in ns, counter) at one moment: of some tries the one that took least time."""
    best: tuple[int, float, int] | None = None
    for _ in range(_TRIES):
        before = time.monotonic_ns()
        counter = read()
        after = time.monotonic_ns()
        if best is None or after - before < best[0]:
            best = (after - before, (before + after) / 2, counter)
    assert best is not None
    return best[1], best[2]
