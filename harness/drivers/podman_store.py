"""Podman's own little world for one run: configuration, image store and network, all in scratch.

Nothing of the user's is read or written. The store is loaded from the images' OCI layouts before
the clock starts, and shared by all variants of Podman in a run.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import cgroup, lab, linux
from harness.drivers.commanded import PATH, find_program
from harness.errors import HostError
from harness.images.model import Image
from harness.images.oci import write_archive
from harness.process import run_command

PROGRAMS = {"crun": "crun", "runc": "runc", "gvisor": "runsc"}
PLUGIN_FOLDERS = ("/usr/lib/cni", "/usr/libexec/cni", "/opt/cni/bin")
_SHORT = ("/mnt", "/media", "/srv")
_CACHE = Path("/var/lib/containers/cache")
_LEFT = (
    *(str(lab.NETWORK_RESULTS), str(lab.NETWORK_RESULTS.parent)),
    *(str(_CACHE), str(_CACHE.parent)),
)
_RUNROOT_MAX = 50
_LOAD_S = 300.0


@dataclass(frozen=True, slots=True)
class PodmanStore:
    """Where the run's Podman keeps things. ``runroot`` is a short path: Podman wants that."""

    folder: Path
    runroot: Path
    run_id: str

    @property
    def network(self) -> str:
        return cgroup.PREFIX + self.run_id

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": PATH,
            "HOME": str(self.folder),
            "TMPDIR": str(self.folder / "tmp"),
            "CONTAINERS_CONF": str(self.folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.folder / "storage.conf"),
        }

    def build_words(self) -> tuple[str, ...]:
        """The command line up to the command."""
        return (
            find_program("podman") or "podman",
            *("--root", str(self.folder / "store")),
            *("--runroot", str(self.runroot)),
            *("--tmpdir", str(self.folder / "tmp")),
        )


def build_reference(image: Image) -> str:
    return f"localhost/harness-{image.name}:latest"


def build_engine_config(folder: Path, runtimes: Mapping[str, str]) -> str:
    """containers.conf(5): groups made directly, and limits that a host without systemd allows.

    Locks are files in the run's own folder: the default is a memory segment that all Podmans of
    the host share.
    """
    lines = [f'{name} = ["{path}"]' for name, path in runtimes.items()]
    folders = ", ".join(f'"{each}"' for each in PLUGIN_FOLDERS)
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
            'network_backend = "cni"',
            f'network_config_dir = "{folder / "net"}"',
            f"cni_plugin_dirs = [{folders}]",
            "",
        ]
    )


def build_network_config(name: str, folder: Path) -> str:
    """A CNI network that is the lab's bridge: addresses are given, nothing is filtered."""
    ranges = [[{"subnet": "10.87.0.0/16", "gateway": lab.GATEWAY}]]
    plugin = {
        "type": "bridge",
        "bridge": lab.BRIDGE,
        "isGateway": False,
        "ipMasq": False,
        "capabilities": {"ips": True},
        "ipam": {
            "type": "host-local",
            "dataDir": str(folder / "addresses"),
            "ranges": ranges,
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    return json.dumps({"cniVersion": "0.4.0", "name": name, "plugins": [plugin]})


@contextlib.contextmanager
def start_store(folder: Path, run_id: str, images: Sequence[Image]) -> Iterator[PodmanStore]:
    """Make the store and load ``images`` into it; raises HostError. For use inside the lab."""
    for name in ("cache", "net", "store", "tmp", "run"):
        (folder / name).mkdir(parents=True)
    runtimes = {name: find_program(program) for name, program in PROGRAMS.items()}
    present = {name: path for name, path in runtimes.items() if path}
    (folder / "containers.conf").write_text(build_engine_config(folder, present))
    name = cgroup.PREFIX + run_id
    (folder / "net" / f"{name}.conflist").write_text(build_network_config(name, folder))
    policy = {"default": [{"type": "insecureAcceptAnything"}]}
    (folder / "policy.json").write_text(json.dumps(policy))
    lab.note_folders(run_id, _LEFT)
    with _shorten(folder / "run") as runroot:
        storage = f'[storage]\ndriver = "overlay"\ngraphroot = "{folder / "store"}"\n'
        (folder / "storage.conf").write_text(f'{storage}runroot = "{runroot}"\n')
        store = PodmanStore(folder, runroot, run_id)
        with _keep_cache(folder / "cache"):
            for image in images:
                load_image(store, image)
        try:
            yield store
        finally:
            lab.unmount_below(folder)


def load_image(store: PodmanStore, image: Image) -> None:
    """Load an image's OCI layout into the store, under the harness's name; raises HostError."""
    archive = store.folder / f"{image.name}.tar"
    write_archive(image.packings["oci-gzip"].path, build_reference(image), archive)
    policy = ["--signature-policy", str(store.folder / "policy.json")]
    load = [*store.build_words(), "load", "--quiet", *policy, "--input", str(archive)]
    try:
        run_command(load, timeout=_LOAD_S, env=store.environment)
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


@contextlib.contextmanager
def _shorten(folder: Path) -> Iterator[Path]:
    """``folder`` under a path of at most 50 characters: bound, in the lab's own mounts."""
    if len(str(folder)) <= _RUNROOT_MAX:
        yield folder
        return
    used = [str(folder), str(Path.cwd())]
    places = [each for each in _SHORT if Path(each).is_dir()]
    free = [each for each in places if not any(path.startswith(each) for path in used)]
    if not free:
        raise HostError(
            f"podman takes no run folder as long as {folder}",
            hint="point HARNESS_CACHE at a short one",
        )
    with _bind(folder, Path(free[0])):
        yield Path(free[0])


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
