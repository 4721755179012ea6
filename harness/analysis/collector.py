"""The garbage collector kept away from a million objects of which none is garbage.

Left alone it walks all of them again and again while they are made, which takes longer than
making them (https://docs.python.org/3/library/gc.html#gc.freeze).
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def start_pause() -> Iterator[None]:
    """Within, nothing is collected; afterwards all is as before."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def start_freeze() -> Iterator[None]:
    """Within, what is alive at the start is not looked at; what is made later is."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
