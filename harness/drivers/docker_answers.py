"""What a Docker daemon says of a container, read from its answers: pure."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness import cgroup
from harness.certificate import NONE, Condition
from harness.drivers.base import InstanceSpec


def find_container_address(found: Mapping[str, Any]) -> str | None:
    """Its address on the first network that gave it one, from what the daemon says of a container.

    The address beside the networks is gone from the API since its version 1.52 (Docker 29).
    """
    networks = found["NetworkSettings"].get("Networks") or {}
    addresses = (each.get("IPAddress") for each in networks.values())
    return next(filter(None, addresses), None)


def find_upper(found: Mapping[str, Any]) -> Path | None:
    """Where a container's own layer is, if its daemon names a folder: not in containerd's store."""
    upper = ((found.get("GraphDriver") or {}).get("Data") or {}).get("UpperDir")
    return Path(upper) if upper else None


def find_store(found: Mapping[str, Any]) -> str | None:
    """What keeps a container's layers: a graph driver of Docker's, or a snapshotter of containerd's
    (``Storage``, since API 1.52)."""
    graph = found.get("GraphDriver") or {}
    snapshot = ((found.get("Storage") or {}).get("RootFS") or {}).get("Snapshot") or {}
    name = graph.get("Name") or snapshot.get("Name")
    return str(name) if name else None


def build_conditions(
    asked: Mapping[str, Any], store: str | None, spec: InstanceSpec
) -> dict[str, Condition]:
    """Limits and writable layer of a container, from what the daemon says of it (``HostConfig``,
    in the words of its API)."""
    cores = (asked.get("CpuQuota") or 0) / (asked.get("CpuPeriod") or cgroup.CPU_PERIOD_US)
    cores = (asked.get("NanoCpus") or 0) / 1e9 or cores
    rates = [each["Rate"] for each in asked.get("BlkioDeviceWriteBps") or ()]
    limits = {
        "cpus": cores,
        "memory": asked.get("Memory") or 0,
        "pids": max(0, asked.get("PidsLimit") or 0),
        "io": min(rates, default=0),
    }
    how = "as its daemon says"
    found = {name: Condition(value or NONE, how) for name, value in limits.items()}
    found["disk"] = Condition(NONE, "its engine has a store of its own" if spec.disk else "")
    storage = "read-only" if asked.get("ReadonlyRootfs") else "disk"
    where = f" ({store})" if store else ""
    found["storage"] = Condition(storage, f"layer in the daemon's store{where}")
    return found
