"""What several platforms of a run use together: a store of images, a daemon.

The first of them makes it, and takes it away when the run ends. Where it cannot be made, the others
fail for the reason for which the first did: making it is not tried again on what is left of it.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from harness.errors import HarnessError, HostError, describe_unexpected


@contextmanager
def start_shared(
    shared: dict[str, object], name: str, start: Callable[[], AbstractContextManager[object]]
) -> Iterator[None]:
    """Have what ``start`` makes in ``shared`` under ``name``; raises HostError, and the first time
    whatever nobody expected."""
    found = shared.get(name)
    if isinstance(found, HostError):
        raise HostError(found.message, hint=found.hint)
    if found is not None:
        yield
        return
    with ExitStack() as stack:
        try:
            shared[name] = stack.enter_context(start())
        except (HarnessError, OSError) as error:
            shared[name] = fault = build_fault(error)
            raise fault from error
        except Exception as error:  # a fault of the harness, and raised as what it is
            shared[name] = HostError(f"internal error: {describe_unexpected(error)}")
            raise
        stack.callback(shared.pop, name)  # before what it was is taken away
        yield


def build_fault(error: HarnessError | OSError) -> HostError:
    """Why something could not be made, as one error."""
    if isinstance(error, HarnessError):
        return HostError(error.message, hint=error.hint)
    where = f"{error.filename}: " if error.filename else ""
    return HostError(f"{where}{error.strerror or error}")
