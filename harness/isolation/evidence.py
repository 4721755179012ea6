"""The agent's probe records as JSON types, and the host's side of the same questions.

Nothing is judged here: a record is what a kernel answered (agent/PROTOCOL.md, «The probe»).
"""

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.errors import TrialError

NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
_STATUS = ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp", "Seccomp_filters", "Uid")
_LISTS = {
    "process": "processes", "sysctl": "sysctls", "device": "devices", "mount": "mounts",
    "interface": "interfaces", "route": "routes", "socket": "sockets", "call-left-out": "left_out",
}  # fmt: skip
_COUNTS = {"processes": 2, "sysctls": 2, "sockets": 1, "unix-sockets": 2}
_TABLES = {"kernel": 2, "namespace": 1, "status": 1, "reach": 2, "calls": 2}


def parse_probe(text: str) -> dict[str, object]:
    """The records by kind; raises TrialError if the last one, ``end``, is missing.

    A list has a list of words for each record; a count and a table have words by name.
    """
    lists: dict[str, list[list[str]]] = {name: [] for name in _LISTS.values()}
    counts: dict[str, list[str]] = {}
    tables: dict[str, dict[str, list[str]]] = {name: {} for name in _TABLES}
    ended = False
    for line in text.splitlines():
        kind, *words = line.split(" ")
        if kind in _LISTS and words:
            lists[_LISTS[kind]].append(words)
        elif kind in _COUNTS:
            counts[kind] = words
        elif kind in _TABLES and len(words) > 1:
            tables[kind][words[0]] = words[1:]
        ended = ended or kind == "end"
    if not ended or set(_COUNTS) - set(counts):
        raise TrialError("the probe's records end too early")
    return {"lists": lists, "counts": counts, **tables}


def read_host() -> dict[str, object]:
    """The harness's own kernel and namespaces, which an instance's are compared with."""
    system = os.uname()
    namespaces = {}
    for kind in NAMESPACES:
        with contextlib.suppress(OSError):
            namespaces[kind] = os.readlink(f"/proc/self/ns/{kind}")
    boot = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return {"release": system.release, "boot": boot, "namespaces": namespaces}


def read_outside(pids: Sequence[int], proc: Path) -> list[dict[str, str]]:
    """What the host's kernel says of the processes that are the instance; ended ones left out."""
    found = []
    for pid in pids:
        with contextlib.suppress(OSError):
            lines = (proc / str(pid) / "status").read_text().splitlines()
            table = dict(line.split(":", 1) for line in lines if ":" in line)
            kept = {name: table[name].split()[0] for name in _STATUS if name in table}
            found.append({"name": table["Name"].strip(), **kept})
    return found


def find_reached(evidence: Mapping[str, object], tokens: Mapping[str, str]) -> list[str]:
    """The targets whose listener on the host was truly heard: it said its own word."""
    reach = evidence["reach"]
    assert isinstance(reach, Mapping)
    return [target for target, word in tokens.items() if reach.get(target) == ["ok", word]]


def find_link(evidence: Mapping[str, object], kind: str) -> str | None:
    """The instance's namespace of a kind, without escapes; None where it has no such link."""
    namespaces = evidence["namespace"]
    assert isinstance(namespaces, Mapping)
    words = namespaces.get(kind)
    return str(words[0]) if words else None
