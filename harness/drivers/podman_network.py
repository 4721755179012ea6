"""How Podman joins its containers to the lab's bridge: by netavark, or by the plugins before it.

The bridge is the lab's, and every platform of a run is on it. The plugins (CNI) leave a bridge that
they find, and so does netavark from its release 1.14 on, if it is told to (``mode=unmanaged``). An
earlier one does not know the word: it takes the bridge for its own, sets rules of a firewall for
each container, and removes the bridge with the last of them.
"""

import contextlib
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from harness import lab
from harness.errors import HostError
from harness.process import run_command

PLUGIN_FOLDERS = ("/usr/lib/cni", "/usr/libexec/cni", "/opt/cni/bin")
_HELPERS = ("/usr/local/libexec/podman", "/usr/local/lib/podman", "/usr/libexec/podman",
            "/usr/lib/podman")  # fmt: skip
"""Where Podman looks for netavark, first to last (containers.conf(5), ``helper_binaries_dir``)."""
_UNMANAGED = (1, 14)
_ASK_S = 10.0
_LACKING = "the network plugins are not installed: install containernetworking-plugins"


@dataclass(frozen=True, slots=True)
class Maker:
    """Who makes Podman's networks: ``cni`` or ``netavark``, and the latter's own words for its
    release, empty where it has none."""

    name: str
    release: str = ""


def read_maker(said: str) -> Maker:
    """From what ``podman info`` says of its host, as JSON. Before release 4.6 that has nothing of
    netavark but its name, so it is asked itself. Raises HostError for what is no JSON."""
    try:
        host = json.loads(said)
    except ValueError:
        raise HostError(
            f"`podman info` says nothing of its host but {said.strip()[:80]!r}",
            hint="install Podman anew",
        ) from None
    name = str(host.get("networkBackend") or "cni")
    told = host.get("networkBackendInfo") or {}
    if name != "netavark":
        return Maker(name)
    return Maker(name, str(told.get("version") or _ask_release(str(told.get("path") or ""))))


def _ask_release(path: str) -> str:
    places = [Path(path)] if path else [Path(each) / "netavark" for each in _HELPERS]
    for program in places:
        with contextlib.suppress(HostError):
            if program.exists():
                return run_command([str(program), "--version"], timeout=_ASK_S).stdout.strip()
    return ""


def leaves_bridge(maker: Maker) -> bool:
    """Whether it can be told to leave a bridge that it finds as it is."""
    if maker.name != "netavark":
        return True
    found = re.search(r"(\d+)\.(\d+)", maker.release)
    return found is not None and (int(found[1]), int(found[2])) >= _UNMANAGED


def choose_maker(found: Maker, takes_plugins: bool, has_them: bool) -> tuple[str, str | None]:
    """Who is to make the networks, and why nobody can join the lab's bridge, or None.

    ``takes_plugins`` is whether this Podman can use CNI where it would have used netavark.
    """
    if leaves_bridge(found) and found.name != "cni":
        return found.name, None
    lacking = None if has_them else _LACKING
    if found.name == "cni":
        return "cni", lacking
    release = found.release or "this netavark, which does not say its release,"
    fault = f"{release} would remove the lab's bridge, which 1.14 and newer leave alone"
    if takes_plugins:
        return "cni", lacking and f"{fault}, and {lacking}"
    return found.name, f"{fault}: install a newer netavark"


def has_plugins() -> bool:
    return any((Path(folder) / "bridge").exists() for folder in PLUGIN_FOLDERS)


def write_network(name: str, folder: Path, backend: str) -> None:
    """The lab's bridge as a network of Podman's, in the words of who makes its networks."""
    if backend == "cni":
        (folder / "net" / f"{name}.conflist").write_text(build_cni_network(name, folder))
    else:
        (folder / "net" / f"{name}.json").write_text(build_netavark_network(name))


def build_netavark_network(name: str) -> str:
    """A network of netavark's that is the lab's bridge, which it does not manage: it makes no
    bridge, sets no address on it, and filters nothing (podman-network-create(1), ``mode``)."""
    return json.dumps(
        {
            "name": name,
            "id": hashlib.sha256(name.encode()).hexdigest(),
            "driver": "bridge",
            "network_interface": lab.BRIDGE,
            "created": "2000-01-01T00:00:00Z",
            "subnets": [{"subnet": "10.87.0.0/16", "gateway": lab.GATEWAY}],
            "ipv6_enabled": False,
            "internal": False,
            "dns_enabled": False,
            "options": {"mode": "unmanaged"},
            "ipam_options": {"driver": "host-local"},
        }
    )


def build_cni_network(name: str, folder: Path) -> str:
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
