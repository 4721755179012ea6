"""The application that is rebuilt, and its Containerfiles: pure text.

The two orders differ as those of many projects do. The good one copies the list of dependencies
first and the code last; the bad one copies everything at once, so that any change of the code
installs the dependencies anew.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from harness.rebuild.cases import Change, Way

BASE = "localhost/base"
LIST = "requirements.txt"
HOME = "srv/app"
PACKAGES = "/packages"
"""Where a build finds the .deb files: beside the image, as a mirror would be, not in a layer."""

_PAGES = 64
_INSTALL = f"cd {PACKAGES} && xargs --arg-file=/{HOME}/{LIST} dpkg --install"
_STEP = re.compile(r"^STEP \d+/(\d+):", re.MULTILINE)
_CACHED = re.compile(r"^--> Using cache ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Version:
    """One state of what goes into a build.

    ``code`` is any text that is another one for other code; ``dependencies`` are names of .deb
    files; ``base`` is 1, or 2 after the security update.
    """

    code: str
    dependencies: tuple[str, ...]
    base: int = 1


def build_change(before: Version, change: Change, mark: str, added: tuple[str, ...]) -> Version:
    """What ``change`` makes of ``before``. ``mark`` is new each time, so that nothing has it yet;
    ``added`` are the .deb files that the new dependency brings."""
    if change == "code":
        return Version(mark, before.dependencies, before.base)
    if change == "dependency":
        return Version(before.code, (*before.dependencies, *added), before.base)
    return Version(before.code, before.dependencies, before.base + 1)


def build_containerfile(way: Way, base: int) -> str:
    """The instructions in good or bad order, from the base of that number."""
    steps = {
        "good": (f"COPY {LIST} /{HOME}/", f"RUN {_INSTALL}", f"COPY . /{HOME}/"),
        "bad": (f"COPY . /{HOME}/", f"RUN {_INSTALL}"),
    }[way]
    end = f'CMD ["python3", "/{HOME}/app.py"]'
    return "\n".join((f"FROM {BASE}:{base}", *steps, end)) + "\n"


def build_context(version: Version) -> dict[str, str]:
    """The application's files, by their path in its folder."""
    pages = {f"pages/{number:02}.html": _build_page(number) for number in range(_PAGES)}
    listing = "".join(f"{name}\n" for name in version.dependencies)
    return {LIST: listing, "app.py": _build_code(version.code), **pages}


def find_changed(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[str, ...]:
    """The files that a developer has touched between two contexts."""
    return tuple(path for path, text in after.items() if before.get(path) != text)


def count_expected(change: Change, way: Way) -> int:
    """How many instructions an intact cache saves: only new code below a good order saves any."""
    return 2 if (change, way) == ("code", "good") else 0


def count_steps(output: str) -> tuple[int, int]:
    """(instructions after FROM, those of them that the cache saved) of a build, as printed."""
    totals: Iterable[str] = _STEP.findall(output)
    return max((int(each) for each in totals), default=1) - 1, len(_CACHED.findall(output))


def _build_page(number: int) -> str:
    lines = (f"<p>{number * 7919 % 10007 + line * line}</p>\n" for line in range(200))
    return f"<!doctype html><title>{number}</title>\n{''.join(lines)}"


def _build_code(code: str) -> str:
    return (
        f'"""The application, {code}."""\n\n'
        "from flask import Flask\n\n"
        "app = Flask(__name__)\n\n\n"
        '@app.get("/")\n'
        "def show() -> str:\n"
        f'    return "{code}"\n\n\n'
        'if __name__ == "__main__":\n'
        '    app.run("0.0.0.0", 8080)\n'
    )
