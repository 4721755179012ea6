"""Images from elsewhere for the tests: layers, layouts, `docker save` archives, a real registry."""

import contextlib
import gzip
import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Member = tuple[tarfile.TarInfo, bytes]

CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")  # cap_net_bind_service=ep


def member(
    name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, mode: int = 0o644, **more: Any
) -> Member:
    """One entry of a layer; ``more`` are attributes of TarInfo, ``xattrs`` extended ones."""
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.mtime = kind, mode, 1000
    xattrs: Mapping[str, bytes] = more.pop("xattrs", {})
    info.pax_headers = {f"SCHILY.xattr.{key}": os.fsdecode(value) for key, value in xattrs.items()}
    for key, value in more.items():
        setattr(info, key, value)
    info.size = len(data)
    return info, data


def build_tar(members: Sequence[Member]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def read_layer(root: Path) -> list[Member]:
    """A folder as the members of a layer, without the harness's own."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(root, "", filter=lambda each: None if each.name == ".harness" else each)
    buffer.seek(0)
    found = []
    with tarfile.open(fileobj=buffer) as archive:
        for info in archive:
            file = archive.extractfile(info) if info.isreg() else None
            if info.name:
                found.append((info, file.read() if file else b""))
    return found


def write_image(
    folder: Path,
    layers: Sequence[bytes],
    config: Mapping[str, object] | None = None,
    architecture: str = "amd64",
    *,
    digests: Sequence[str] | None = None,
    excess: int = 0,
) -> Path:
    """An OCI layout with layers that are whole tars, compressed with gzip.

    ``digests`` may state others than theirs, and ``excess`` is what descriptors say too much.
    """
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True)

    def add(data: bytes, media: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        kind = f"application/vnd.oci.image.{media}"
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data) + excess}

    packed = [gzip.compress(layer, 1, mtime=0) for layer in layers]
    true = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    document = {
        "architecture": architecture, "os": "linux", "config": dict(config or {}),
        "rootfs": {"type": "layers", "diff_ids": true if digests is None else digests},
    }  # fmt: skip
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": add(json.dumps(document).encode(), "config.v1+json"),
        "layers": [add(each, "layer.v1.tar+gzip") for each in packed],
    }
    described = add(json.dumps(manifest).encode(), "manifest.v1+json")
    index = {"schemaVersion": 2, "manifests": [described]}
    (folder / "index.json").write_text(json.dumps(index))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return folder


def join_layouts(folder: Path, layouts: Mapping[str, Path]) -> Path:
    """One layout with the images of several, by their tags."""
    described = []
    for tag, layout in layouts.items():
        shutil.copytree(layout, folder, dirs_exist_ok=True)
        (one,) = json.loads((layout / "index.json").read_text())["manifests"]
        described.append({**one, "annotations": {"org.opencontainers.image.ref.name": tag}})
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": described}))
    return folder


def write_saved(
    out: Path, layers: Sequence[bytes], config: Mapping[str, object], *, broken: bool = False
) -> Path:
    """What `docker save` writes: plain layers, known by their digests in the configuration."""
    digests = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    document = {
        "architecture": "amd64", "os": "linux", "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": digests},
    }  # fmt: skip
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    listing = [{"Config": "config.json", "RepoTags": ["app:1"], "Layers": names}]
    files = [("config.json", json.dumps(document).encode())]
    files += [(name, layer + (bytes(512) if broken else b"")) for name, layer
              in zip(names, layers, strict=True)]  # fmt: skip
    files.append(("manifest.json", json.dumps(listing).encode()))
    out.write_bytes(build_tar([member(name, data) for name, data in files]))
    return out


def find_layer(layout: Path, number: int = 0) -> Path:
    """The blob of a layer of a layout."""
    index = json.loads((layout / "index.json").read_text())
    manifest = layout / "blobs" / index["manifests"][0]["digest"].replace(":", "/")
    layers = json.loads(manifest.read_text())["layers"]
    return layout / "blobs" / str(layers[number]["digest"]).replace(":", "/")


def torture(small: int) -> list[Member]:
    """Every kind of entry, and ``small`` files."""
    folder, link = tarfile.DIRTYPE, tarfile.LNKTYPE
    entries = [
        member("odd", kind=folder, mode=0o755),
        *(member(f"odd/{name}", name.encode(errors="surrogateescape")) for name in ODD_NAMES),
        member("empty", kind=folder, mode=0o700, uid=1234, gid=70_000),
        member("fifo", kind=tarfile.FIFOTYPE, mode=0o600),
        member("char", kind=tarfile.CHRTYPE, mode=0o666, devmajor=1, devminor=3),
        member("block", kind=tarfile.BLKTYPE, mode=0o660, gid=6, devmajor=7, devminor=200),
        member("setuid", b"s", mode=0o4755),
        member("setgid", b"s", mode=0o2755, gid=50),
        member("sticky", kind=folder, mode=0o1777),
        member("capable", b"c", mode=0o755, xattrs={"security.capability": CAPABILITY}),
        member("attributes", b"x", xattrs={"user.text": b"a\nb", "user.bytes": b"\xff\x00\x01"}),
        member("folder", kind=folder, mode=0o755, xattrs={"user.of-a-folder": b"1"}),
        member("first", b"linked" * 100),
        member("empty/second", kind=link, linkname="first"),
        member("third", kind=link, linkname="first"),
        member("dangling", kind=tarfile.SYMTYPE, linkname="../../nowhere and more"),
        member("nothing"),
        member("/".join(f"d{number}" for number in range(60)) + "/deep", b"d"),
        build_sparse("sparse", 20 << 20, b"in the middle", 64 << 20),
        build_sparse("hole-one", 0, b"", 8 << 20, mode=0o600, uid=11, gid=12),
        build_sparse("hole-two", 0, b"", 8 << 20, mode=0o644, uid=21, gid=22),
        *(member(name, b"gone") for name in REMOVED),
    ]
    entries += [member(f"many/{number % 300}/{number}", b"%d\n" % number * (number % 40),
                       uid=number % 7) for number in range(small)]  # fmt: skip
    return entries


REMOVED = ("folder/removed", "hidden/one", "hidden/deep/two")
"""What the torture image's last layer takes away: a file, and all that a folder had."""


def remove() -> list[Member]:
    """The last layer of the torture image: a whiteout, and an opaque folder with something new."""
    return [
        member("folder/.wh.removed"),
        member("hidden/.wh..wh..opq"),
        member("hidden/new", b"new"),
    ]


def build_sparse(name: str, position: int, data: bytes, size: int, **more: Any) -> Member:
    """A file of ``size`` bytes with data in one place, as GNU tar writes it (PAX, sparse 1.0)."""
    spans = [(position, len(data)), (size, 0)]
    numbers = [len(spans), *(number for span in spans for number in span)]
    where = "".join(f"{number}\n" for number in numbers).encode()
    info, content = member(
        f"GNUSparseFile.0/{name}", where + bytes(-len(where) % 512) + data, **more
    )
    info.pax_headers = {
        "GNU.sparse.major": "1", "GNU.sparse.minor": "0",
        "GNU.sparse.name": name, "GNU.sparse.realsize": str(size),
    }  # fmt: skip
    return info, content


ODD_NAMES = (
    "new\nline", "quo\"te's", os.fsdecode(b"\xff\xfe-bytes"), "\u00fc", "back\\slash", " blank ",
    "-dash", "n" * 255, "tab\t",
)  # fmt: skip


# ---- a registry ------------------------------------------------------------------------------


def find_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@contextmanager
def start_registry(folder: Path) -> "Iterator[tuple[int, subprocess.Popen[bytes]]]":
    """Debian's docker-registry on loopback; its port and its process."""
    port = find_port()
    config = folder / "registry.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: "
        f"{folder}/registry}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n"
    )
    with (folder / "registry.log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", config], stdout=log, stderr=log)
    try:
        _await_port(port)
        yield port, process
    finally:
        process.kill()
        process.wait(10)


def _await_port(port: int) -> None:
    for _ in range(100):
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("the registry does not listen")


def push(layout: Path, port: int, name: str) -> str:
    """Push a layout; the reference that it is pulled by."""
    target = f"docker://127.0.0.1:{port}/{name}"
    words = ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"oci:{layout}", target]
    subprocess.run(words, check=True, timeout=360, capture_output=True)
    return target


@contextmanager
def start_breaking_proxy(
    port: int, process: "subprocess.Popen[bytes]", after: int
) -> Iterator[int]:
    """A port before the registry, which is killed once so many bytes have come through."""
    listener = socket.create_server(("127.0.0.1", 0))
    passed = [0]

    def pump(source: socket.socket, target: socket.socket, counts: bool) -> None:
        try:
            while data := source.recv(16384):
                passed[0] += len(data) if counts else 0
                if passed[0] > after:
                    process.kill()
                    break
                target.sendall(data)
        except OSError:
            pass
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)  # a close alone wakes nobody

    def serve() -> None:
        while True:
            try:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", port))
            except OSError:
                if listener.fileno() < 0:
                    return
                near.close()
                continue
            threading.Thread(target=pump, args=(near, far, False), daemon=True).start()
            threading.Thread(target=pump, args=(far, near, True), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.close()
