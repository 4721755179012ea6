"""`vm-direct` and `vm-microvm` for real: libvirt, QEMU, the guest kernel and its agent."""

import contextlib
import hashlib
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import cgroup, lab
from harness.drivers import accelerator
from harness.drivers.accelerator import (
    KVM_DEVICE,
    build_direct_guest,
    prove_accelerator,
)
from harness.drivers.libvirt_host import open_hypervisor
from harness.drivers.tsc import measure_tsc_khz
from harness.drivers.vm_instance import find_remedy
from harness.errors import HarnessError, TrialError
from harness.images.model import GuestKernel, Image, Packing, Programs
from harness.model import build_phases
from harness.paths import scratch_root
from harness.probes import request
from harness.starter import read_clock
from tests.integration.boot_sector import start_boot_sector
from tests.integration.laboratory import run_in_lab
from tests.integration.machines import MEMORY, Parts, fail_to_start, list_leftovers

PLATFORMS = ("vm-direct", "vm-microvm")
SECOND = 1_000_000_000
MILESTONES = {"request", "created", "kernel", "init", "exec", "ready"}


@pytest.fixture(scope="module")
def parts(tiny_image: Image, programs: Programs, guest_kernel: GuestKernel) -> Parts:
    prove_accelerator(build_direct_guest(guest_kernel))
    return Parts(tiny_image, programs, guest_kernel)


# ---- a start and its end ---------------------------------------------------------------------


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_start_has_every_milestone_and_leaves_nothing(
    parts: Parts, tmp_path: Path, platform: str
) -> None:
    def start(run_id: str) -> Any:
        with parts.start(platform, run_id) as instance:
            emulated = instance.accelerator
            total, available = map(int, instance.ask("memory").split())
            trips = instance.round_trips(5)
            pids = instance.processes().inside
            growth = os.stat(instance.files()[0]).st_size
            begun = time.monotonic()
            instance.stop()
            seconds = time.monotonic() - begun
        milestones = dict(instance.milestones)
        return [milestones, total, available, trips, pids, emulated, growth, seconds,
                list_leftovers(run_id)]  # fmt: skip

    found = run_in_lab(start, tmp_path)
    milestones, total, available, trips, pids, accelerator, growth, seconds, left = found
    assert set(milestones) == MILESTONES
    assert milestones["created"] < milestones["init"] < milestones["exec"] < milestones["ready"]
    assert set(build_phases(milestones)) >= {"created", "exec", "ready"}
    assert 0 < available < total < MEMORY
    assert len(trips) == 5 and 0 < max(trips) < 1
    assert len(pids) == 1
    assert accelerator in ("kvm", "tcg")
    assert growth > 0
    assert seconds < 5
    assert left == []


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_service_answers_over_the_bridge(parts: Parts, tmp_path: Path, platform: str) -> None:
    def start(run_id: str) -> Any:
        address = lab.build_address(7)
        network = {"address": address, "gateway": lab.GATEWAY, "bridge": lab.BRIDGE}
        command = ("sh", "-c", "echo hello >/tmp/index.html; exec httpd -f -p 8080 -h /tmp")
        with parts.start(
            platform, run_id, command=command, ready="tcp:8080", **network
        ) as instance:
            until = read_clock() + 5 * SECOND
            host = address.partition("/")[0]
            stamp = request.request_first_answer(host, 8080, "/index.html", until)
            return [stamp - instance.milestones["ready"], list_leftovers_after(instance, run_id)]

    delay, left = run_in_lab(start, tmp_path)
    assert 0 < delay < SECOND
    assert left == []


def list_leftovers_after(instance: Any, run_id: str) -> list[str]:
    instance.stop()
    return list_leftovers(run_id)


def test_the_guest_sees_the_images_files_and_the_containers_mounts(
    parts: Parts, tmp_path: Path
) -> None:
    script = """
        find / -xdev -type f -not -name channel | grep -v lost.found | sort | xargs sha256sum
        awk '{print $2, $3}' /proc/mounts | grep -E ' (proc|sysfs|devpts|tmpfs)$' | sort
        echo "$(hostname) $(cat /proc/sys/kernel/hostname | cut -c1-8)"
    """

    def look(platform: str) -> Any:
        def start(run_id: str) -> str:
            with parts.start(platform, run_id, command=("sh", "-c", script)) as instance:
                instance.ask("memory")  # output comes before the answer to what is asked later
                instance.stop()
                text: str = instance.channel.output.decode()
                return text

        return run_in_lab(start, tmp_path).splitlines()

    guest, container = look("vm-direct"), look("namespace")
    files = [line for line in container if line[:8].isalnum() and "  /" in line]
    assert len(files) > 5
    assert set(files) <= set(guest)
    for mount in ("/proc proc", "/sys sysfs", "/dev/pts devpts", "/dev/shm tmpfs"):
        assert mount in guest and mount in container


def test_the_image_is_never_written(parts: Parts, tmp_path: Path) -> None:
    disk = parts.image.packings["ext4-raw"].path

    def start(run_id: str) -> int:
        command = ("sh", "-c", "head -c 3000000 /dev/zero >/written")
        with parts.start("vm-direct", run_id, command=command) as instance:
            before = overlay_size(instance)
            instance.stop()
            return overlay_size(instance) - before

    before = hashlib.sha256(disk.read_bytes()).hexdigest()
    assert run_in_lab(start, tmp_path) >= 3_000_000
    assert hashlib.sha256(disk.read_bytes()).hexdigest() == before


def overlay_size(instance: Any) -> int:
    return int(instance.files()[0].stat().st_blocks * 512)


def test_qemu_is_accounted_in_the_instances_group_and_the_harness_is_not(
    parts: Parts, tmp_path: Path
) -> None:
    def start(run_id: str) -> Any:
        tree = cgroup.find_tree(run_id)
        assert tree is not None
        folders = tree.start("one")
        with parts.start("vm-microvm", run_id, cgroups=folders) as instance:
            inside = cgroup.read_processes(folders)
            cpu = cgroup.read_cpu_time(folders)
            charged = cgroup.read_memory(folders)
            assert cpu is not None and charged is not None
            return [inside, instance.domain.pid, os.getpid(), cpu.total, charged.total]

    inside, pid, harness, cpu, memory = run_in_lab(start, tmp_path)
    assert inside == [pid]
    assert harness not in inside
    assert cpu > 0.1
    assert memory > 20 << 20


def test_two_machines_run_beside_each_other(parts: Parts, tmp_path: Path) -> None:
    def start(run_id: str) -> Any:
        with contextlib.ExitStack() as stack:
            names = []
            driver = parts.driver("vm-microvm", run_id)
            for name in ("one", "two"):
                spec = parts.spec(run_id, name, command=("sleep", "60"))
                instance = stack.enter_context(driver.start_instance(spec))
                instance.channel.wait_for("exec", read_clock() + 30 * SECOND)
                names.append(instance.domain.name)
            root = scratch_root() / run_id / "libvirt"
            running = {
                each.name() for each in open_hypervisor(None, root).connection.listAllDomains()
            }
        return [names, sorted(running), list_leftovers(run_id)]

    names, running, left = run_in_lab(start, tmp_path)
    assert running == sorted(names)
    assert left == []


@pytest.mark.parametrize("platform", PLATFORMS)
def test_libvirts_schema_accepts_the_description(
    parts: Parts, tmp_path: Path, platform: str
) -> None:
    def check(run_id: str) -> str:
        driver = parts.driver(platform, run_id)
        network = {"address": lab.build_address(1), "bridge": lab.BRIDGE}
        described = driver.describe(parts.spec(run_id, **network))
        open_hypervisor(None, scratch_root() / run_id / "libvirt").validate(described["domain"])
        return str(described["kernel_command_line"])

    assert "harness.root=/dev/vda" in run_in_lab(check, tmp_path)


def test_a_delay_in_the_guest_is_measured_as_long_as_it_is(parts: Parts, tmp_path: Path) -> None:
    def start(run_id: str) -> Any:
        script = "usleep 20000; echo one; usleep 300000; echo two"
        with parts.start(
            "vm-microvm", run_id, command=("sh", "-c", script), ready="output:two"
        ) as instance:
            return (instance.milestones["ready"] - instance.milestones["exec"]) / SECOND

    seconds = run_in_lab(start, tmp_path)
    assert 0.32 < seconds < 0.32 + 0.2  # two processes are started on the way, emulated perhaps


# ---- ends that nobody wanted -----------------------------------------------------------------


def test_a_command_that_is_not_in_the_image(parts: Parts, tmp_path: Path) -> None:
    def start(run_id: str) -> Any:
        return fail_to_start(parts, run_id, "vm-microvm", command=("no-such",))

    message, _, _, left = run_in_lab(start, tmp_path)
    assert message == "the workload could not start: exec no-such: No such file or directory"
    assert left == []


def test_a_workload_that_never_gets_ready(parts: Parts, tmp_path: Path) -> None:
    def start(run_id: str) -> Any:
        return fail_to_start(
            parts, run_id, "vm-microvm", command=("sleep", "60"), ready="output:up", timeout=6.0
        )

    message, _, seconds, left = run_in_lab(start, tmp_path)
    assert message == "not ready within 6 s; the last milestone was exec"
    assert seconds < 12
    assert left == []


def test_a_stubborn_workload_is_stopped_with_its_machine(parts: Parts, tmp_path: Path) -> None:
    def start(run_id: str) -> Any:
        command = ("sh", "-c", "trap '' TERM; echo up; while true; do sleep 1; done")
        with parts.start("vm-microvm", run_id, command=command, ready="output:up") as instance:
            begun = time.monotonic()
            instance.stop()
            return [time.monotonic() - begun, list_leftovers(run_id)]

    seconds, left = run_in_lab(start, tmp_path)
    assert seconds < 5
    assert left == []


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_guest_that_panics(parts: Parts, tmp_path: Path, platform: str) -> None:
    def start(run_id: str) -> Any:
        command = ("sh", "-c", "echo c >/proc/sysrq-trigger; sleep 60")
        return fail_to_start(parts, run_id, platform, command=command, ready="output:never")

    message, _, seconds, left = run_in_lab(start, tmp_path)
    assert message.startswith("the guest's kernel panicked: ")
    assert "Kernel panic - not syncing: sysrq triggered crash" in message
    assert seconds < 30
    assert left == []


def test_a_guest_with_too_little_memory(parts: Parts, tmp_path: Path) -> None:
    """Far below the edge: near it a guest may also hang until its time is over."""

    def start(run_id: str) -> Any:
        return fail_to_start(parts, run_id, "vm-microvm", memory=56 << 20)

    message, _, seconds, left = run_in_lab(start, tmp_path)
    assert message.startswith("the guest's kernel panicked: ")
    assert seconds < 30
    assert left == []


def test_a_deadlock_on_memory_has_a_remedy() -> None:
    message = "the guest's kernel panicked: Kernel panic: System is deadlocked on memory"
    assert find_remedy(message) == 'give the guest more memory, such as `memory = "128MiB"`'


def test_qemu_killed_in_mid_boot(parts: Parts, tmp_path: Path) -> None:
    def start(run_id: str) -> Any:
        driver = parts.driver("vm-direct", run_id)
        begun = time.monotonic()
        try:
            with driver.start_instance(parts.spec(run_id)) as instance:
                instance.channel.wait_for("kernel", read_clock() + 20 * SECOND)
                os.kill(instance.domain.pid, signal.SIGKILL)
                instance.wait_ready()
        except TrialError as error:
            seconds = time.monotonic() - begun
            return [error.message, error.hint, seconds, list_leftovers(run_id)]
        raise AssertionError("it started")

    message, hint, seconds, left = run_in_lab(start, tmp_path)
    assert message == "the virtual machine ended after kernel: QEMU died"
    assert hint.startswith("its console's last line: ")
    assert seconds < 10
    assert left == []


def test_a_disk_that_is_no_file_system(parts: Parts, tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(bytes(1 << 20))
    packing = Packing("ext4-raw", disk, 1 << 20, 1 << 20)
    image = replace(parts.image, packings={**parts.image.packings, "ext4-raw": packing})

    def start(run_id: str) -> Any:
        return fail_to_start(parts, run_id, "vm-microvm", image=image)

    message, _, _, left = run_in_lab(start, tmp_path)
    assert message == "the guest gave up: cannot mount /newroot: Invalid argument"
    assert left == []


def test_a_machine_that_qemu_refuses(parts: Parts, tmp_path: Path) -> None:
    def start(run_id: str) -> Any:
        return fail_to_start(parts, run_id, "vm-microvm", bridge="nobridge", address="10.9.9.9/24")

    message, _, _, left = run_in_lab(start, tmp_path)
    assert message.startswith("libvirt could not start the virtual machine: ")
    assert "nobridge" in message
    assert left == []


# ---- accelerators ----------------------------------------------------------------------------


def test_a_boot_sector_runs_under_kvm_through_libvirt(parts: Parts, tmp_path: Path) -> None:
    """The path of hardware KVM, with a guest so small that even a software KVM runs it."""
    assert KVM_DEVICE.exists(), "this test needs /dev/kvm"
    found = run_in_lab(start_boot_sector, tmp_path)
    assert (found["event"], found["printed"]) == (["console", "first"], "K")
    assert "<domain type='kvm'" in found["live"]
    assert "host-passthrough" in found["live"]
    assert "/dev/kvm" in found["open"]


def test_the_accelerator_is_proved_by_a_boot_and_remembered(
    guest_kernel: GuestKernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    monkeypatch.setattr(accelerator, "KVM_BOUND_S", 3.0)
    first = prove_accelerator(build_direct_guest(guest_kernel))
    assert first.proved
    assert "booted in" in first.reason
    if first.name == "tcg":
        assert "not KVM: " in first.reason
    begun = time.monotonic()
    assert prove_accelerator(build_direct_guest(guest_kernel)) == first
    assert time.monotonic() - begun < 1


def test_asking_for_kvm_is_no_way_around_the_proof(guest_kernel: GuestKernel) -> None:
    if prove_accelerator(build_direct_guest(guest_kernel)).name == "kvm":
        assert prove_accelerator(build_direct_guest(guest_kernel), "kvm").proved
        return
    with pytest.raises(HarnessError, match="KVM cannot run the guests here: ") as raised:
        prove_accelerator(build_direct_guest(guest_kernel), "kvm")
    assert raised.value.exit_code == 3


def test_emulation_can_be_asked_for(guest_kernel: GuestKernel) -> None:
    found = prove_accelerator(build_direct_guest(guest_kernel), "tcg")
    assert (found.name, found.proved) == ("tcg", True)


def test_the_time_stamp_counter_has_one_frequency() -> None:
    first = measure_tsc_khz()
    measure_tsc_khz.cache_clear()
    second = measure_tsc_khz()
    assert first is not None and second is not None
    assert abs(first - second) < first / 1000
