"""Container images rebuilt by buildah: builds with a cache, and the layers that are new.

buildah's storage is in the run's scratch folder, so that nothing of the host's own is used or
changed. Manual: buildah-build(1), buildah-push(1).
"""

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HostError, TrialError
from harness.images.archive import digest_file
from harness.images.oci import Compression, compress_file
from harness.process import Completed, run_command
from harness.rebuild.cases import Way
from harness.rebuild.recipe import (
    BASE,
    PACKAGES,
    Version,
    build_containerfile,
    build_context,
    count_steps,
)

PACKAGE = "buildah"
COMPRESSIONS: tuple[Compression, ...] = ("gzip", "zstd")
_TIMEOUT = 300.0


@dataclass(frozen=True, slots=True)
class Built:
    """One build: seconds, and the instructions after FROM with those that the cache saved."""

    seconds: float
    steps: int
    cached: int


@dataclass(frozen=True, slots=True)
class Blobs:
    """An image's layers by digest with their uncompressed bytes, and its config and manifest."""

    layers: Mapping[str, int]
    descriptions: Mapping[str, int]


def find_reason() -> str | None:
    """Why there can be no rebuild here, or None."""
    return None if shutil.which("buildah") else "buildah is not installed"


def require_buildah() -> None:
    """Raise HostError where buildah is missing."""
    reason = find_reason()
    if reason is not None:
        raise HostError(f"rebuild: {reason}", hint=f"install the package {PACKAGE}")


@dataclass(frozen=True, slots=True)
class Builder:
    """buildah with a storage of its own below ``folder``; ``packages`` holds the .deb files."""

    folder: Path
    packages: Path

    def pull(self, layout: Path, number: int) -> None:
        """Take an OCI layout as the base image of that number.

        Its path is said relative to its folder: buildah makes a name of it, and no part of a name
        may begin with a dot, as that of a folder in the home directory does.
        """
        name = self._run("pull", f"oci:{layout.name}", folder=layout.parent).stdout.split()[-1]
        self._run("tag", name, f"{BASE}:{number}")

    def build(self, way: Way, version: Version, tag: str) -> Built:
        """Build ``version`` and call it ``tag``; raises TrialError with buildah's last words."""
        context = self._write_context(way, version)
        begun = time.monotonic()
        done = self._run(
            "build", "--layers", "--isolation=chroot", "--pull=never", "--format=oci",
            f"--volume={self.packages}:{PACKAGES}:ro", f"--file={context.parent}/Containerfile",
            f"--tag={name_image(tag)}", str(context),
        )  # fmt: skip
        seconds = time.monotonic() - begun
        return Built(seconds, *count_steps(done.stdout + done.stderr))

    def read_blobs(self, tag: str) -> Blobs:
        """What the image is made of, read from a copy whose layers are not compressed."""
        copy = self.folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        self._run("push", "--disable-compression", name_image(tag), f"dir:{copy}")
        manifest = json.loads((copy / "manifest.json").read_text())
        described = {digest_file(copy / "manifest.json"): (copy / "manifest.json").stat().st_size}
        return Blobs(
            {each["digest"]: each["size"] for each in manifest["layers"]},
            {manifest["config"]["digest"]: manifest["config"]["size"], **described},
        )

    def find_layer(self, digest: str) -> Path:
        """The file of a layer that the last `read_blobs` has told of: a tar, not compressed."""
        return self.folder / "copy" / digest.removeprefix("sha256:")

    def compress(self, digests: Mapping[str, int], kind: Compression) -> dict[str, int]:
        """Bytes of each layer as a registry gets it, by its compressed digest."""
        out = self.folder / f"layer.{kind}"
        found = {}
        for digest in digests:
            compress_file(self.find_layer(digest), out, kind)
            found[digest_file(out)] = out.stat().st_size
        out.unlink(missing_ok=True)
        return found

    def list_images(self) -> frozenset[str]:
        """Every image in the storage, those without a name too: the state of the cache."""
        return frozenset(self._run("images", "--all", "--quiet", "--no-trunc").stdout.split())

    def remove(self, tag: str) -> None:
        """Remove an image and whatever of the cache only it has brought."""
        self._run("rmi", name_image(tag))

    def _write_context(self, way: Way, version: Version) -> Path:
        """The folder of the application; the Containerfile lies beside it, or it would count."""
        context = self.folder / "context"
        shutil.rmtree(context, ignore_errors=True)
        for path, text in build_context(version).items():
            (context / path).parent.mkdir(parents=True, exist_ok=True)
            (context / path).write_text(text)
        (self.folder / "Containerfile").write_text(build_containerfile(way, version.base))
        return context

    def _run(self, *words: str, folder: Path | None = None) -> Completed:
        store = (f"--root={self.folder}/storage", f"--runroot={self.folder}/run")
        command = ["buildah", *store, "--storage-driver=overlay", *words]
        environment = {"TMPDIR": str(self.folder), "BUILDAH_ISOLATION": "chroot"}
        done = run_command(command, timeout=_TIMEOUT, check=False, env=environment, cwd=folder)
        if done.returncode != 0:
            raise TrialError(f"buildah {words[0]} failed: {find_last_words(done)}")
        return done


def name_image(tag: str) -> str:
    return f"localhost/app:{tag}"


def find_last_words(done: Completed) -> str:
    """The last line of what a program said, the errors before the rest."""
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    return lines[-1] if lines else f"it ended with {done.returncode} and printed nothing"
