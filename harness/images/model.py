"""Images, their packings and the guest kernel, as plain frozen data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Packing:
    """One form of an image. ``virtual`` is the size of the disk a guest sees, None for others.

    ``path`` is a folder for ``tree`` and the OCI layouts, a file otherwise.
    Packings: ``tree``, ``oci-gzip``, ``oci-zstd``, ``ext4-raw``, ``qcow2`` (compressed),
    ``raw-zstd``.
    """

    name: str
    path: Path
    apparent: int
    allocated: int
    virtual: int | None = None


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What an image says of running it (OCI image specification, config.md).

    ``user`` is as it was written; ``identity`` is what that means in the image's own /etc/passwd
    and /etc/group, ``UID:GID[,GROUP…]``, empty if it is not known there; ``home`` is that user's.
    """

    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: str = "/"
    user: str = ""
    identity: str = "0:0"
    home: str = "/"

    @property
    def argv(self) -> tuple[str, ...]:
        """The command that it runs by itself; empty if it has none."""
        return (*self.entrypoint, *self.command)


@dataclass(frozen=True, slots=True)
class Image:
    """A root file system: ``digest`` (``sha256:…``) is that of its canonical tar.

    Every packing is made from that tar; its tree has the agent at ``/.harness/agent`` and the
    empty folder ``/.harness/run`` for the channel. ``config`` is None where the image came without
    one: recipes, folders and tarballs. ``imported`` images have their trees compared before a run.
    ``facts`` are what can be counted in it (`facts.count_facts`); images made by older releases
    have none.
    """

    name: str
    digest: str
    folder: Path
    packings: Mapping[str, Packing]
    config: ImageConfig | None = None
    imported: bool = False
    facts: Mapping[str, int] = field(default_factory=dict)

    @property
    def tree(self) -> Path:
        return self.packings["tree"].path


@dataclass(frozen=True, slots=True)
class Disk:
    """A whole bootable disk made of an image: boot loaders, kernel, systemd, and the image's tree.

    Packings: ``disk-raw`` (sparse), ``disk-qcow2`` (compressed), ``disk-raw-zstd``. ``digest``
    stands for the raw disk's bytes, ``image_digest`` is that of its image. ``packages`` are (name,
    version, installed bytes) of what the disk has beyond the image, and ``extra_bytes`` is how much
    more its files hold. ``changed`` are paths of the image's own tree that differ on the disk.
    """

    image: str
    image_digest: str
    digest: str
    folder: Path
    packings: Mapping[str, Packing]
    kernel: str
    packages: tuple[tuple[str, str, int], ...]
    extra_bytes: int
    changed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GuestKernel:
    """The kernel every direct-boot guest runs, with the initramfs that holds the agent.

    ``layered`` is the initramfs for a read-only root below a layer to write in: more modules.
    """

    release: str
    digest: str
    bzimage: Path
    elf: Path
    initramfs: Path
    layered: Path
    modules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Programs:
    """The static programs, compiled once and cached by the digest of their source."""

    agent: Path
    starter: Path
