"""The two static programs, compiled once: the agent in every instance and the host's starter."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from harness.errors import HostError
from harness.images.model import Programs
from harness.places import require_cache
from harness.process import run_command

SOURCES = Path(__file__).parent.parent / "agent"
NAMES = ("agent", "starter")

_KERNEL_HEADERS = ("/usr/include", "/usr/include/x86_64-linux-gnu")
_FLAGS = ("-static", "-Os", "-s", "-std=gnu11", "-Wall", "-Wextra", "-Wl,--build-id=none")

_ENVIRONMENT = {"LC_ALL": "C", "SOURCE_DATE_EPOCH": "0"}


def build_programs(sources: Path = SOURCES) -> Programs:
    """Compile ``agent.c`` and ``starter.c``, or find them in the cache; raises HostError.

    Same sources and same compiler give the same bytes, so the agent may be part of an image's
    digest.
    """
    compiler = require_compiler()
    folder = require_cache() / "programs" / _digest_inputs(compiler, sources)
    if not folder.is_dir():
        _compile_into(folder, compiler, sources)
    return Programs(agent=folder / "agent", starter=folder / "starter")


def require_compiler() -> tuple[str, ...]:
    """The first words of the compiler's command line; musl gives the smallest static programs."""
    if shutil.which("musl-gcc"):
        # musl's own headers come first; the kernel's (linux/*.h) are the only ones it lacks.
        after = (word for folder in _KERNEL_HEADERS for word in ("-idirafter", folder))
        return ("musl-gcc", *after)
    if shutil.which("gcc"):
        return ("gcc",)
    raise HostError(
        "the agent cannot be compiled: there is no C compiler",
        hint="install the packages musl-tools and gcc",
    )


def build_compile(
    compiler: Sequence[str], source: Path, out: Path, sources: Path = SOURCES
) -> list[str]:
    """The command line that compiles one program; no path of this host gets into its bytes."""
    return [*compiler, *_FLAGS, f"-ffile-prefix-map={sources}=.", "-o", str(out), str(source)]


def compile_program(source: Path, out: Path, *, shared: bool = False) -> None:
    """Compile one other program: static, or ``shared`` with musl's libc; raises HostError."""
    compiler = require_compiler()
    if shared and compiler[0] != "musl-gcc":
        raise HostError(
            f"{source.name} cannot be linked with musl: musl-gcc is not installed",
            hint="install the package musl-tools",
        )
    words = build_compile(compiler, source, out, source.parent)
    _run_compiler([word for word in words if not (shared and word == "-static")], source, out)


def _run_compiler(command: Sequence[str], source: Path, out: Path) -> None:
    """Its steps' files are beside ``out``: others may have filled /tmp."""
    environment = {**_ENVIRONMENT, "TMPDIR": str(out.parent)}
    done = run_command(command, timeout=120, check=False, env=environment)
    if done.returncode != 0:
        raise HostError(f"{source.name} cannot be compiled: {_find_error(done.stderr)}")


def _compile_into(folder: Path, compiler: Sequence[str], sources: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=folder.parent) as name:
        built = Path(name) / "programs"
        built.mkdir()
        for program in NAMES:
            source = sources / f"{program}.c"
            out = built / program
            _run_compiler(build_compile(compiler, source, out, sources), source, out)
        try:
            os.rename(built, folder)
        except OSError:
            # Another process compiled the same sources at the same time.
            if not folder.is_dir():
                raise


def _digest_inputs(compiler: Sequence[str], sources: Path) -> str:
    version = run_command([compiler[0], "--version"], timeout=30).stdout
    digest = hashlib.sha256("\0".join((*compiler, *_FLAGS, version)).encode())
    for path in sorted([*sources.glob("*.c"), *sources.glob("*.h")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _find_error(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line]
    return (errors or lines or ["the compiler printed nothing"])[0]
