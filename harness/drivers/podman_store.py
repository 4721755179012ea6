"""Podman's own little world for one run: configuration, image store and network, all in scratch.

Nothing of the user's is read or written. The store is loaded from the images' OCI layouts before
the clock starts, and shared by all variants of Podman in a run.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness import cgroup, lab, linux
from harness.drivers.commanded import ENVIRONMENT, find_program
from harness.drivers.podman_network import (
    PLUGIN_FOLDERS,
    choose_maker,
    has_plugins,
    leaves_bridge,
    read_maker,
    write_network,
)
from harness.errors import HostError
from harness.images.model import Image
from harness.images.oci import write_archive
from harness.process import run_command

PROGRAMS = {"crun": "crun", "runc": "runc", "gvisor": "runsc"}
CONFIG = "containers.conf"
RUN_ROOT = Path("/run/podman")
"""Where the store's run folder is bound to, in the lab's own /run: Podman takes no path of more
than 50 characters for it."""
_CACHE = Path("/var/lib/containers/cache")
_LEFT = (
    *(str(lab.NETWORK_RESULTS), str(lab.NETWORK_RESULTS.parent)),
    *(str(_CACHE), str(_CACHE.parent)),
)
_ASK_S = 30.0
_LOAD_S = 300.0


@dataclass(frozen=True, slots=True)
class PodmanStore:
    """Where the run's Podman keeps things, and who makes its networks: ``cni`` or ``netavark``, or
    why nobody can join the lab's bridge (``network_fault``)."""

    folder: Path
    run_id: str
    backend: str = "netavark"
    network_fault: str | None = None

    @property
    def network(self) -> str:
        return cgroup.PREFIX + self.run_id

    @property
    def environment(self) -> dict[str, str]:
        return {
            **ENVIRONMENT,
            "HOME": str(self.folder),
            "TMPDIR": str(self.folder / "tmp"),
            "CONTAINERS_CONF": str(self.folder / CONFIG),
            "CONTAINERS_STORAGE_CONF": str(self.folder / "storage.conf"),
        }

    def build_words(self) -> tuple[str, ...]:
        """The command line up to the command."""
        return (
            find_program("podman") or "podman",
            *("--root", str(self.folder / "store")),
            *("--runroot", str(RUN_ROOT)),
            *("--tmpdir", str(self.folder / "tmp")),
        )


def build_reference(image: Image) -> str:
    return f"localhost/harness-{image.name}:latest"


def build_engine_config(
    folder: Path, runtimes: Mapping[str, str], backend: str | None = None
) -> str:
    """containers.conf(5): groups made directly, and limits that a host without systemd allows.

    Locks are files in the run's own folder: the default is a memory segment that all Podmans of
    the host share. Who makes networks is left to Podman, where no ``backend`` is named: releases
    from 5 on know netavark only, and earlier ones may have been built with either.
    """
    lines = [f"{name} = [{quote(path)}]" for name, path in runtimes.items()]
    folders = ", ".join(map(quote, PLUGIN_FOLDERS))
    return "\n".join(
        [
            "[containers]",
            'default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]',
            'log_driver = "k8s-file"',
            "[engine]",
            'cgroup_manager = "cgroupfs"',
            'events_logger = "none"',
            'lock_type = "file"',
            "[engine.runtimes]",
            *lines,
            "[network]",
            f"network_config_dir = {quote(folder / 'net')}",
            f"cni_plugin_dirs = [{folders}]",
            *([f"network_backend = {quote(backend)}"] if backend else []),
            "",
        ]
    )


def quote(text: str | Path) -> str:
    """A string in a TOML file (its basic strings are those of JSON)."""
    return json.dumps(str(text), ensure_ascii=False)


@contextlib.contextmanager
def start_store(folder: Path, run_id: str, images: Sequence[Image]) -> Iterator[PodmanStore]:
    """Make the store and load ``images`` into it; raises HostError. For use inside the lab."""
    for name in ("cache", "net", "store", "tmp", "run"):
        (folder / name).mkdir(parents=True)
    runtimes = {name: find_program(program) for name, program in PROGRAMS.items()}
    present = {name: path for name, path in runtimes.items() if path}
    (folder / CONFIG).write_text(build_engine_config(folder, present))
    policy = {"default": [{"type": "insecureAcceptAnything"}]}
    (folder / "policy.json").write_text(json.dumps(policy))
    lab.note_folders(run_id, _LEFT)
    RUN_ROOT.mkdir(exist_ok=True)
    with _bind(folder / "run", RUN_ROOT):
        storage = f'[storage]\ndriver = "overlay"\ngraphroot = {quote(folder / "store")}\n'
        (folder / "storage.conf").write_text(f"{storage}runroot = {quote(RUN_ROOT)}\n")
        store = PodmanStore(folder, run_id)
        store = _choose_network(store, present)
        if store.network_fault is None:
            write_network(store.network, folder, store.backend)
        with _keep_cache(folder / "cache"):
            for image in images:
                load_image(store, image)
        try:
            yield store
        finally:
            lab.unmount_below(folder)


def _choose_network(store: PodmanStore, runtimes: Mapping[str, str]) -> PodmanStore:
    """Have Podman's networks made by something that leaves the lab's bridge alone, if there is any;
    raises HostError where Podman does not answer."""
    found = read_maker(_ask(store))
    takes_plugins = False
    if not leaves_bridge(found):
        config = build_engine_config(store.folder, runtimes, backend="cni")
        (store.folder / CONFIG).write_text(config)
        with contextlib.suppress(HostError):  # built without
            takes_plugins = read_maker(_ask(store)).name == "cni"
        if not takes_plugins:
            (store.folder / CONFIG).write_text(build_engine_config(store.folder, runtimes))
    backend, fault = choose_maker(found, takes_plugins, has_plugins())
    return replace(store, backend=backend, network_fault=fault)


def _ask(store: PodmanStore) -> str:
    """What the installed Podman says of the host that it is on, as JSON."""
    ask = [*store.build_words(), "info", "--format", "{{json .Host}}"]
    return run_command(ask, timeout=_ASK_S, env=store.environment, only=True).stdout


def load_image(store: PodmanStore, image: Image) -> None:
    """Load an image's OCI layout into the store, under the harness's name; raises HostError."""
    archive = store.folder / f"{image.name}.tar"
    write_archive(image.packings["oci-gzip"].path, build_reference(image), archive)
    policy = ["--signature-policy", str(store.folder / "policy.json")]
    load = [*store.build_words(), "load", "--quiet", *policy, "--input", str(archive)]
    try:
        run_command(load, timeout=_LOAD_S, env=store.environment, only=True)
    finally:
        archive.unlink()


def find_layer(store: Path, name: str) -> Path | None:
    """What the container called ``name`` has written: the upper directory of its layer.

    From the lists of containers/storage: one for all, one for those that go when they end.
    """
    for table in sorted((store / "overlay-containers").glob("*containers.json")):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            for each in json.loads(table.read_text()):
                if name in each.get("names", ()):
                    return store / "overlay" / str(each["layer"]) / "diff"
    return None


def _keep_cache(folder: Path) -> contextlib.AbstractContextManager[None]:
    """What Podman remembers of layers it has seen goes to ``folder``, not to the host's cache."""
    _CACHE.mkdir(parents=True, exist_ok=True)
    return _bind(folder, _CACHE)


@contextlib.contextmanager
def _bind(folder: Path, place: Path) -> Iterator[None]:
    """``folder`` is seen at ``place`` too, in the lab's own mounts."""
    linux.mount(str(folder), place, "", linux.MS_BIND)
    try:
        yield
    finally:
        linux.unmount(place)
