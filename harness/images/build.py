"""From a recipe to a root file system: mmdebstrap unpacks Debian's packages, the rest is ours."""

from collections.abc import Sequence
from pathlib import Path

from harness.errors import HostError
from harness.images import apt
from harness.images.archive import read_content, read_tar
from harness.images.closure import select_closure
from harness.images.programs import compile_program
from harness.images.recipes import EPOCH, Recipe
from harness.images.rooted import require_owners, require_tools, run_rooted
from harness.images.rootfs import Entry, build_file, build_symlink, finish_tree, select_entries
from harness.images.workshop import Progress, require_space
from harness.process import run_command

_TIMEOUT = 900.0
_HOOKS = "/usr/share/mmdebstrap/hooks"
_BUSYBOX = ("bin/busybox", "usr/bin/busybox")


def build_tree(
    recipe: Recipe, sources: apt.Sources, agent: Path, folder: Path, progress: Progress
) -> dict[str, Entry]:
    """Build ``recipe`` in the scratch folder ``folder``; the entries' content stays there."""
    require_owners()
    require_space(folder, recipe.space)
    tree = _unpack(recipe, sources, folder, progress) if recipe.variant else {}
    if recipe.applets:
        tree |= read_applets(tree, folder)
    tree |= compile_programs(recipe, folder)
    files = {path: text.replace("{suite}", sources.suite) for path, text in recipe.files.items()}
    return finish_tree(tree, agent, files)


def _unpack(
    recipe: Recipe, sources: apt.Sources, folder: Path, progress: Progress
) -> dict[str, Entry]:
    """What the recipe keeps of its Debian packages."""
    require_tools("mmdebstrap", "apt-get", "dpkg")
    apt.require_keyring(sources)
    progress(f"{recipe.name}: unpacking Debian {sources.suite} packages")
    raw = folder / "packages.tar"
    run_mmdebstrap(recipe, sources, folder, raw)
    tree = select_entries(read_tar(raw), recipe)
    return select_closure(tree, recipe.closure) if recipe.closure else tree


def build_mmdebstrap(
    recipe: Recipe, suite: str, settings: Sequence[str], sources: Path, out: Path
) -> list[str]:
    """The command line that unpacks and configures the packages of ``recipe`` into a tar."""
    options = [f"--variant={recipe.variant}", "--mode=root", "--format=tar", "--skip=output/dev"]
    if recipe.packages:
        options.append(f"--include={','.join(recipe.packages)}")
    options += [f"--hook-dir={_HOOKS}/{name}" for name in recipe.hooks]
    options += [f"--aptopt={line}" for line in settings]
    options += [f"--dpkgopt=path-exclude={pattern}" for pattern in recipe.exclude]
    options += [f"--dpkgopt=path-include={pattern}" for pattern in recipe.include]
    return ["mmdebstrap", *options, suite, str(out), str(sources)]


def run_mmdebstrap(
    recipe: Recipe, sources: apt.Sources, folder: Path, out: Path, options: Sequence[str] = ()
) -> None:
    """Run mmdebstrap as root of its own namespaces; raises HostError with its own reason.

    ``options`` are further ones of its command line.
    """
    listing = folder / "debian.sources"
    listing.write_text(apt.format_sources(sources.archives))
    scratch = folder / "mmdebstrap"
    scratch.mkdir()
    program, *words = build_mmdebstrap(
        recipe, sources.suite, apt.read_host_settings(), listing, out
    )
    argv = [program, *options, *words]
    environment = {
        "SOURCE_DATE_EPOCH": str(EPOCH),
        "TMPDIR": str(scratch),
        "LC_ALL": "C.UTF-8",
        "DEBIAN_FRONTEND": "noninteractive",
    }
    done = run_rooted(argv, timeout=_TIMEOUT, check=False, env=environment)
    if done.returncode != 0:
        raise HostError(
            f"image {recipe.name}: mmdebstrap failed: {apt.find_reason(done.stderr)}",
            hint="is the Debian mirror reachable, and is there space on the disk?",
        )


def compile_programs(recipe: Recipe, folder: Path) -> dict[str, Entry]:
    """The recipe's own programs, compiled in ``folder``."""
    found = {}
    for number, (path, program) in enumerate(recipe.programs.items()):
        source, out = folder / f"program{number}.c", folder / f"program{number}"
        source.write_text(program.source)
        compile_program(source, out, shared=program.shared)
        found[path] = build_file(path, out.read_bytes(), 0o755)
    return found


def read_applets(tree: dict[str, Entry], folder: Path) -> dict[str, Entry]:
    """A symbolic link for each command that the tree's static busybox has."""
    path = next(path for path in _BUSYBOX if path in tree)
    program = folder / "busybox"
    program.write_bytes(read_content(tree[path]))
    program.chmod(0o755)
    names = run_command([program, "--list-full"], timeout=30).stdout.split()
    missing = (name for name in names if "/" in name and name not in tree)
    return {name: build_symlink(name, f"/{path}") for name in missing}
