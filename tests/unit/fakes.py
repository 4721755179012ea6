"""A driver and instances that follow a script, for the runner's own logic only."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from harness.channel import Channel
from harness.drivers.base import (
    Daemon,
    InstanceSpec,
    Packed,
    PlainDriver,
    PlainInstance,
    Processes,
    find_address,
)
from harness.errors import TrialError
from harness.images.model import Image, Packing
from harness.model import Kind
from harness.starter import Starter

STAMPS = {"request": 0, "created": 1_000_000, "init": 2_000_000, "exec": 4_000_000}

SPEC = InstanceSpec(
    name="harness-r1-7",
    folder=Path("/scratch/t7"),
    image=Image("tiny", "sha256:0", Path("/i"), {"tree": Packing("tree", Path("/i/tree"), 1, 1)}),
    command=("true",),
    environment={},
    ready="exit",
    memory=64 << 20,
    cpus=2,
)
"""An instance as data, to see what an engine would be told of it."""

BRIDGED = replace(SPEC, address="10.87.0.9/16", gateway="10.87.0.1", bridge="hbr0")


@dataclass
class FakeInstance(PlainInstance):
    """An instance that is ready 10 ms after its request, or fails as it was told."""

    spec: InstanceSpec
    problem: str | None = None
    ran_on: str = "none"
    milestones: dict[str, int] = field(default_factory=lambda: dict(STAMPS))
    stopped: bool = False
    printed: bytes = b""
    seen: bool = True
    heard: Callable[[bytes], None] = lambda _: None
    tells_late: bool = False
    """Whether it tells what it runs on only when it is ready, as a sandbox does."""

    @property
    def accelerator(self) -> str:
        return "none" if self.tells_late and "ready" not in self.milestones else self.ran_on

    @property
    def channel(self) -> Channel:
        return Channel(cast(Starter, None), output=bytearray(self.printed))

    @property
    def address(self) -> str | None:
        return find_address(self.spec)

    @property
    def cgroups(self) -> Sequence[Path]:
        return self.spec.cgroups

    def listen(self, heard: Callable[[bytes], None]) -> None:
        self.heard = heard

    def wait_ready(self) -> None:
        self.heard(self.printed)
        if self.problem:
            raise TrialError(self.problem, hint="look into it")
        self.milestones["ready"] = 10_000_000

    def ask(self, question: str) -> str:
        assert question == "memory"
        return "1000 400"

    def round_trips(self, count: int) -> Sequence[float]:
        return [0.001 * (number + 1) for number in range(count)]

    def processes(self) -> Processes:
        return Processes(())

    def files(self) -> Sequence[Path] | None:
        return (self.spec.folder / "upper",) if self.seen else None

    def stop(self) -> None:
        self.stopped = True


@dataclass
class FakeDriver(PlainDriver):
    """Starts fake instances. ``problem`` says of a spec why its start fails, or None."""

    name: str = "namespace"
    kind: Kind = "container"
    problem: Callable[[InstanceSpec], str | None] = lambda _: None
    accelerator: str = "none"
    daemon: Daemon | None = None
    no_network: str | None = None
    printed: bytes = b""
    seen: bool = True
    console: str = "what the guest said\n"
    watched: Sequence[Path] = ()
    started: list[FakeInstance] = field(default_factory=list)

    def unavailable(self) -> str | None:
        return None

    def files(self, image: Image) -> Sequence[Path]:  # noqa: ARG002 - the interface names it
        return self.watched

    def packed(self, image: Image) -> Sequence[Packed]:  # noqa: ARG002 - the interface names it
        return ()

    def describe(self, spec: InstanceSpec) -> Mapping[str, object]:
        return {"name": spec.name}

    def start_run(self, _specs: Sequence[InstanceSpec], /) -> AbstractContextManager[None]:
        return nullcontext()

    def start_instance(self, spec: InstanceSpec) -> AbstractContextManager[FakeInstance]:
        return self._start(spec)

    @contextmanager
    def _start(self, spec: InstanceSpec) -> Iterator[FakeInstance]:
        instance = FakeInstance(spec, self.problem(spec), self.accelerator)
        instance.printed, instance.seen = self.printed, self.seen
        instance.tells_late = self.kind == "sandbox"
        spec.gate()
        self.started.append(instance)
        (spec.folder / "upper").mkdir()
        (spec.folder / "upper" / "written").write_bytes(b"x" * 10_000)
        (spec.folder / "console.log").write_text(self.console)
        try:
            yield instance
        finally:
            instance.stop()
