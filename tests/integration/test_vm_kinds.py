"""Disks, tuning, snapshots and full disks of virtual machines, each started for real."""

import hashlib
import os
import shutil
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import lab, linux
from harness.drivers import snapshot, vm_disk
from harness.drivers.accelerator import build_direct_guest, prove_accelerator
from harness.drivers.base import InstanceSpec
from harness.drivers.libvirt_host import open_hypervisor
from harness.errors import TrialError
from harness.images.bootable import require_forms
from harness.images.catalog import require_packing
from harness.images.initramfs import build_initramfs
from harness.images.model import Disk, GuestKernel, Image, Programs
from harness.model import build_phases
from harness.paths import scratch_root
from harness.probes import request
from harness.starter import read_clock
from tests.integration.laboratory import run_in_lab
from tests.integration.machines import Parts, fail_to_start, list_leftovers

SECOND = 1_000_000_000
DISKS = ("raw", "qcow2", "squashfs", "erofs", "erofs/upper=disk", "virtiofs")
ON_DISK = ["created", "loader", "kernel", "initramfs", "system", "init", "exec", "ready"]


@pytest.fixture(scope="module")
def parts(tiny_image: Image, programs: Programs, guest_kernel: GuestKernel) -> Parts:
    prove_accelerator(build_direct_guest(guest_kernel))
    for packing in ("squashfs", "erofs"):
        require_packing(tiny_image.name, packing, print)
    image = require_packing(tiny_image.name, "erofs", print)
    return Parts(image, programs, guest_kernel)


@pytest.fixture(scope="module")
def disk(tiny_image: Image) -> Disk:
    return require_forms(tiny_image, print)


# ---- disks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", DISKS)
def test_every_disk_has_the_images_files_and_takes_what_is_written(
    parts: Parts, tmp_path: Path, kind: str
) -> None:
    script = """
        set -e
        find /bin /etc -xdev -type f | sort | xargs sha256sum
        echo new >/etc/hostname; echo more >/srv/file; cat /etc/hostname /srv/file
    """

    def start(run_id: str) -> Any:
        command = ("sh", "-c", script)
        with parts.start(f"vm-direct/disk={kind}", run_id, command=command) as instance:
            instance.ask("memory")
            growth = sum(path.stat().st_blocks for path in instance.files()) * 512
            helpers = [
                Path(f"/proc/{pid}/comm").read_text() for pid in instance.processes().helpers
            ]
            instance.stop()
            return [instance.channel.output.decode(), growth, helpers, list_leftovers(run_id)]

    before = digest_tree(parts.image.tree)
    printed, growth, helpers, left = run_in_lab(start, tmp_path)
    lines = printed.splitlines()
    assert lines[-2:] == ["new", "more"]
    told = dict(reversed(line.split("  ")) for line in lines[:-2])
    assert told == {f"/{path}": digest for path, digest in before.items()}
    assert digest_tree(parts.image.tree) == before
    assert (growth > 0) == (kind not in ("squashfs", "erofs", "virtiofs"))
    assert ("virtiofsd\n" in helpers) == (kind == "virtiofs")
    assert left == []


def digest_tree(tree: Path) -> dict[str, str]:
    files = [path for top in ("bin", "etc") for path in (tree / top).rglob("*")]
    plain = [path for path in files if path.is_file() and not path.is_symlink()]
    return {
        str(path.relative_to(tree)): hashlib.sha256(path.read_bytes()).hexdigest() for path in plain
    }


def test_a_read_only_view_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()

    def look(run_id: str) -> bool:
        folder = scratch_root() / run_id
        folder.mkdir(parents=True)
        with linux.read_only_view(tmp_path / "tree", folder / "view"):
            try:
                (folder / "view" / "file").touch()
            except OSError:
                return not list((tmp_path / "tree").iterdir())
        return False

    assert run_in_lab(look, tmp_path)


# ---- tuning ----------------------------------------------------------------------------------


def test_a_tuned_machine_is_what_it_says(parts: Parts, tmp_path: Path) -> None:
    def start(run_id: str) -> Any:
        driver = parts.driver("vm-direct/tuned", run_id)
        spec = parts.spec(run_id)
        listed = driver.describe(spec)["tuning"]
        with driver.start_instance(spec) as instance:
            instance.wait_ready()
            tasks = Path(f"/proc/{instance.domain.pid}/task")
            threads = {
                (task / "comm").read_text().strip(): sorted(os.sched_getaffinity(int(task.name)))
                for task in tasks.iterdir()
            }
            flags = [read_flags(instance.domain.pid, path) for path in instance.files()]
        return [listed, threads, flags, sorted(os.sched_getaffinity(0))]

    listed, threads, flags, cpus = run_in_lab(start, tmp_path)
    applied = {each["item"] for each in listed if each["applied"]}
    assert all(each["why_not"] for each in listed if not each["applied"])
    assert {"cpu-model", "devices", "iothread"} <= applied
    assert any(name.startswith("IO iothread") for name in threads)
    if "vcpu-pinning" in applied:
        (vcpu,) = (found for name, found in threads.items() if name.startswith("CPU 0"))
        assert vcpu == cpus[-1:]
        assert threads["qemu-system-x86"] == cpus[:-1]
    assert ("disk-cache" in applied) == all(each & os.O_DIRECT for each in flags)


def read_flags(pid: int, path: Path) -> int:
    """The flags with which a process has a file open."""
    for link in Path(f"/proc/{pid}/fd").iterdir():
        if os.readlink(link) == str(path):
            text = Path(f"/proc/{pid}/fdinfo/{link.name}").read_text()
            return int(text.partition("flags:")[2].split()[0], 8)
    raise AssertionError(f"{path} is not open")


def test_cache_modes_and_kernel_forms_start_too(parts: Parts, tmp_path: Path) -> None:
    def start(run_id: str) -> Any:
        with parts.start("vm-microvm/bzimage/cache=none", run_id) as instance:
            return read_flags(instance.domain.pid, instance.files()[0])

    assert run_in_lab(start, tmp_path) & os.O_DIRECT


# ---- snapshots -------------------------------------------------------------------------------


def start_restored(parts: Parts, run_id: str, stack: ExitStack, **changes: Any) -> tuple[Any, Any]:
    """A driver with its snapshot made, and the spec that it was made for."""
    driver = parts.driver("vm-restore", run_id, say=lambda text: said.append(text))
    said: list[str] = []
    driver.said = said
    spec = parts.spec(run_id, **changes)
    stack.enter_context(driver.start_run([spec]))
    return driver, spec


def run_once(driver: Any, spec: InstanceSpec) -> Any:
    with driver.start_instance(spec) as instance:
        instance.wait_ready()
        instance.stop()
        return instance


def test_a_restored_guest_is_alive_and_the_next_one_is_fresh(parts: Parts, tmp_path: Path) -> None:
    def start(run_id: str) -> Any:
        with ExitStack() as stack:
            driver, spec = start_restored(parts, run_id, stack)
            script = ("sh", "-c", "ls /left 2>&1; touch /left; hostname")
            first = replace(spec, command=script)
            found = [run_once(driver, first)]
            again = parts.spec(run_id, "two", command=script)
            found.append(run_once(driver, again))
            stamps = dict(found[1].milestones)
            packed = [[each.packing, [str(path) for path in each.paths]]
                      for each in driver.packed(parts.image)]  # fmt: skip
            return [
                [each.channel.output.decode().splitlines() for each in found],
                [each.channel.challenge for each in found],
                stamps,
                build_phases(stamps),
                packed,
                list_leftovers(run_id),
            ]

    (first, second), challenges, stamps, phases, packed, left = run_in_lab(start, tmp_path)
    assert "No such file" in first[0] and "No such file" in second[0]
    assert first[1].endswith("-one") and second[1].endswith("-two")
    assert challenges[0] != challenges[1]
    order = ["request", "created", "init", "exec", "ready"]
    assert sorted(stamps, key=lambda name: stamps[name]) == order
    assert {"created", "init", "exec", "ready"} <= set(phases)
    assert [name for name, _ in packed] == ["snapshot", "snapshot-zstd"]
    assert any(path.endswith("memory.save") for path in packed[0][1])
    assert left == []


def test_two_restored_machines_run_beside_each_other_on_the_network(
    parts: Parts, tmp_path: Path
) -> None:
    command = ("sh", "-c", "hostname >/tmp/index.html; exec httpd -f -p 8080 -h /tmp")

    def start(run_id: str) -> Any:
        answers = []
        with ExitStack() as stack:
            network = {"gateway": lab.GATEWAY, "bridge": lab.BRIDGE, "command": command}
            changes = {**network, "ready": "tcp:8080", "address": lab.build_address(7)}
            driver, spec = start_restored(parts, run_id, stack, **changes)
            second = parts.spec(run_id, "two", **{**changes, "address": lab.build_address(8)})
            for each in (spec, second):
                instance = stack.enter_context(driver.start_instance(each))
                instance.wait_ready()
            for each in (spec, second):
                host = str(each.address).partition("/")[0]
                request.request_first_answer(host, 8080, "/index.html", read_clock() + 9 * SECOND)
                answers.append(host)
            names = [each.name() for each in open_hypervisor(None, driver.root)
                     .connection.listAllDomains()]  # fmt: skip
        return [answers, names, list_leftovers(run_id)]

    answers, names, left = run_in_lab(start, tmp_path)
    assert len(set(answers)) == 2
    assert sorted(names) == ["harness-restore-0000", "harness-restore-0001"]
    assert left == []


def flip_byte(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize("name", [snapshot.MEMORY, snapshot.DISK])
def test_a_snapshot_damaged_by_one_byte_is_made_again(
    parts: Parts, tmp_path: Path, name: str
) -> None:
    def start(run_id: str) -> Any:
        with ExitStack() as stack:
            driver, spec = start_restored(parts, run_id, stack)
            (made,) = driver._list_made(parts.image)
        flip_byte(made.folder / name)
        with ExitStack() as stack:
            shutil.rmtree(spec.folder)
            driver, spec = start_restored(parts, run_id, stack)
            run_once(driver, spec)
            now = snapshot.read_snapshot(made.folder)
            assert now is not None
            return [driver.said, snapshot.find_fault(now), list_leftovers(run_id)]

    said, fault, left = run_in_lab(start, tmp_path)
    words = f"the snapshot of tiny is damaged ({name} has another digest): it is made again"
    assert said[0] == words
    assert fault is None
    assert left == []


def test_a_snapshot_damaged_during_a_run_fails_the_trial(parts: Parts, tmp_path: Path) -> None:
    def start(run_id: str) -> Any:
        with ExitStack() as stack:
            driver, spec = start_restored(parts, run_id, stack)
            (made,) = driver._list_made(parts.image)
            flip_byte(made.memory)
            try:
                run_once(driver, spec)
            except TrialError as error:
                message = error.message
            run_once(driver, parts.spec(run_id, "two"))  # made again, and good
            return [message, list_leftovers(run_id)]

    message, left = run_in_lab(start, tmp_path)
    assert message == (
        "the snapshot was damaged since the run began: memory.save has another digest"
    )
    assert left == []


def test_libvirts_own_log_is_not_on_the_terminal(
    parts: Parts, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def start(run_id: str) -> Any:
        with ExitStack() as stack:
            driver, spec = start_restored(parts, run_id, stack)
            run_once(driver, spec)
            return (driver.root / "libvirt.log").stat().st_size

    assert run_in_lab(start, tmp_path) > 0  # it has warned there, that QEMU runs as root
    assert "libvirt version" not in capfd.readouterr().err


def test_another_machine_or_image_has_another_snapshot(parts: Parts, tmp_path: Path) -> None:
    def start(run_id: str) -> Any:
        driver = parts.driver("vm-restore", run_id)
        tuned = parts.driver("vm-restore/tuned", run_id)
        spec = parts.spec(run_id)
        other = replace(parts.image, digest="sha256:0")
        specs = [spec, replace(spec, memory=spec.memory * 2), replace(spec, image=other)]
        keys = [driver._build_key(each, driver.accelerator(each.image)) for each in specs]
        keys.append(tuned._build_key(spec, tuned.accelerator(spec.image)))
        again = replace(spec, name="harness-x-9", folder=spec.folder / "elsewhere")
        return [keys, driver._build_key(again, driver.accelerator(spec.image))]

    keys, again = run_in_lab(start, tmp_path)
    assert len(set(keys)) == 4
    assert again == keys[0]


# ---- a machine that starts from its disk -------------------------------------------------------


@pytest.mark.parametrize("platform", ["vm-disk", "vm-disk/uefi"])
def test_a_disk_boots_through_every_milestone_and_shuts_down_in_order(
    parts: Parts, disk: Disk, tmp_path: Path, platform: str
) -> None:
    address = lab.build_address(9)
    script = "ls / | xargs; cat /etc/os-release; exec httpd -f -p 8080 -h /etc"
    network = {"address": address, "gateway": lab.GATEWAY, "bridge": lab.BRIDGE}

    def start(run_id: str) -> Any:
        driver = parts.driver(platform, run_id)
        spec = parts.spec(
            run_id, command=("sh", "-c", script), ready="tcp:8080", memory=256 << 20, timeout=110.0,
            **network,
        )  # fmt: skip
        with driver.start_run([spec]), driver.start_instance(spec) as instance:
            instance.wait_ready()
            host = address.partition("/")[0]
            request.request_first_answer(host, 8080, "/hostname", read_clock() + 9 * SECOND)
            evidence = instance.read_evidence()
            instance.stop()
            stamps = dict(instance.milestones)
            output = instance.channel.output.decode()
            log = instance.layout.console_log.read_text(errors="replace")
            return [stamps, evidence, instance.ends, output, log, list_leftovers(run_id)]

    stamps, evidence, ends, output, log, left = run_in_lab(start, tmp_path)
    assert sorted(stamps, key=lambda name: stamps[name]) == ["request", *ON_DISK]
    phases = build_phases(stamps)
    assert set(ON_DISK) <= set(phases) and phases["residual"] == 0
    seen = evidence["seen_by_guest"]["systemd"]["timestamps"]
    assert 0 < seen["userspace"] < seen["unit"]
    assert "released" in ends and "destroyed" not in ends
    assert "ID=tiny" in output  # the workload sees the image, not the system around it
    assert "Kernel panic" not in log
    assert left == []


def test_the_disk_of_a_trial_is_not_written_to_the_image(disk: Disk) -> None:
    assert {"systemd", "linux-image-cloud-amd64"} & {name for name, _, _ in disk.packages}
    assert disk.extra_bytes > 50 << 20
    assert set(disk.packings) == {"disk-raw", "disk-qcow2", "disk-raw-zstd"}


# ---- what can go wrong -------------------------------------------------------------------------


def test_firmware_that_is_missing_is_told_before_a_run(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = parts.driver("vm-disk/uefi", "none")
    assert driver.unavailable() is None
    monkeypatch.setattr(vm_disk, "find_firmware", lambda: None)
    assert "OVMF is not installed" in driver.unavailable()


def test_a_domain_of_the_same_name_is_left_alone(parts: Parts, tmp_path: Path) -> None:
    def collide(run_id: str) -> Any:
        driver = parts.driver("vm-microvm", run_id)
        spec = parts.spec(run_id)
        users = f"""<domain type="qemu"><name>{spec.name}</name><memory unit="MiB">32</memory>
            <os><type machine="pc">hvm</type></os></domain>"""
        connection = driver.open_hypervisor("tcg").connection
        domain = connection.createXML(users, 0)
        try:
            run_once(driver, spec)
            message = "it started"
        except TrialError as error:
            message = error.message
        alive = domain.isActive()
        domain.destroy()
        return [message, alive]

    message, alive = run_in_lab(collide, tmp_path)
    assert "harness-" in message and "\n" not in message
    assert alive


def test_a_guest_larger_than_the_host(parts: Parts, tmp_path: Path) -> None:
    def start(run_id: str) -> Any:
        return fail_to_start(parts, run_id, "vm-direct", memory=1 << 50)

    message, hint, seconds, left = run_in_lab(start, tmp_path)
    assert message.startswith("libvirt could not start the virtual machine: ")
    assert "memory" in message.lower()
    assert hint
    assert seconds < 20
    assert left == []


def test_a_guest_that_hangs_in_its_firmware(
    parts: Parts, disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A boot sector that waits for ever, as firmware that finds nothing to start does."""
    blank = tmp_path / "blank.raw"
    blank.write_bytes(b"\xeb\xfe".ljust(510, b"\0") + b"\x55\xaa" + bytes(1 << 20))
    packing = replace(disk.packings["disk-raw"], path=blank)
    broken = replace(disk, packings={**disk.packings, "disk-raw": packing})

    def start(run_id: str) -> Any:
        monkeypatch.setattr(vm_disk, "find_disk", lambda _: disk)
        parts.driver("vm-disk", run_id).accelerator(parts.image)
        monkeypatch.setattr(vm_disk, "find_disk", lambda _: broken)
        return fail_to_start(parts, run_id, "vm-disk", timeout=5.0)

    message, _, seconds, left = run_in_lab(start, tmp_path)
    assert message == "not ready within 5 s; the last milestone was created"
    assert seconds < 20
    assert left == []


def test_a_kernel_without_a_driver_for_its_disk(parts: Parts, tmp_path: Path) -> None:
    kernel = parts.kernel
    folder = kernel.bzimage.parent / "modules"
    kept = [f"{name}.ko" for name in kernel.modules if name != "virtio_blk"]
    bare = tmp_path / "bare.cpio"
    modules = {name: (folder / name).read_bytes() for name in kept}
    bare.write_bytes(build_initramfs(parts.programs.agent.read_bytes(), modules))
    poor = Parts(parts.image, parts.programs, replace(kernel, initramfs=bare))

    def start(run_id: str) -> Any:
        return fail_to_start(poor, run_id, "vm-direct", timeout=50.0)

    begun = time.monotonic()
    message, _, _, left = run_in_lab(start, tmp_path)
    assert message == "the guest gave up: no root device /dev/vda: Operation timed out"
    assert time.monotonic() - begun < 60
    assert left == []
