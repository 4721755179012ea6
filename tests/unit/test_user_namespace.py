"""What keeps the lab from being made is named, with the command that mends it."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from harness.user_namespace import Walls, explain_refusal, read_walls

USER = Walls(root=False, capable=False, most={"max_user_namespaces": 30_000})
ROOT = Walls(root=True, capable=True, most={"max_user_namespaces": 30_000})


@pytest.mark.parametrize(
    ("number", "walls", "reason", "remedy"),
    [
        (errno.EPERM, replace(USER, cloning=0), "kernel.unprivileged_userns_clone is 0",
         "as root: sysctl kernel.unprivileged_userns_clone=1"),
        (errno.ENOSPC, replace(USER, most={"max_user_namespaces": 0}),
         "user.max_user_namespaces is 0", "as root: sysctl user.max_user_namespaces=15000"),
        (errno.ENOSPC, replace(USER, most={"max_mnt_namespaces": 9, "max_user_namespaces": 9}),
         "user.max_user_namespaces is 9", "as root: sysctl user.max_user_namespaces=15000"),
        (errno.ENOSPC, replace(ROOT, most={"max_mnt_namespaces": 0, "max_user_namespaces": 9}),
         "user.max_mnt_namespaces is 0", "as root: sysctl user.max_mnt_namespaces=15000"),
        (errno.EPERM, replace(USER, apparmor=1, cloning=1),
         "kernel.apparmor_restrict_unprivileged_userns is 1",
         "as root: sysctl kernel.apparmor_restrict_unprivileged_userns=0"),
        (errno.EACCES, replace(USER, apparmor=1),
         "kernel.apparmor_restrict_unprivileged_userns is 1",
         "as root: sysctl kernel.apparmor_restrict_unprivileged_userns=0"),
        (errno.EPERM, replace(USER, filtered=True), "a seccomp filter is on, as in a container",
         "start the container with `--security-opt seccomp=unconfined` and `--privileged`"),
        (errno.EPERM, replace(USER, chroot=True), "it runs in a chroot",
         "run it in the host's own root, or as root"),
        (errno.EPERM, replace(ROOT, capable=False),
         "root has no CAP_SYS_ADMIN here, as in a container",
         "start the container with `--privileged`, or run the harness outside of it"),
        (errno.EACCES, ROOT,
         "something outside forbids it, as AppArmor, SELinux or a container's masks do",
         "in a container: start it with `--privileged`"),
    ],
)  # fmt: skip
def test_a_refusal_is_explained(number: int, walls: Walls, reason: str, remedy: str) -> None:
    error = explain_refusal(OSError(number, os.strerror(number), "unshare"), walls)
    asked = f"this host does not let the harness make its lab: unshare: {os.strerror(number)}"
    assert error.message == f"{asked}: {reason}"
    assert error.hint == remedy
    assert error.exit_code == 3


def test_what_is_no_refusal_is_not_explained_by_one() -> None:
    error = explain_refusal(OSError(errno.EIO, "Input/output error", "/x"), ROOT)
    assert error.hint is None and error.message.endswith("/x: Input/output error")


def test_a_full_disk_is_no_limit_of_namespaces() -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/cache/lab")
    error = explain_refusal(full, replace(USER, most={"max_user_namespaces": 9}))
    assert error.hint is None and error.message.endswith("/cache/lab: No space left on device")


def test_the_walls_are_read_from_the_kernel(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self/status").write_text("Name:\tx\nCapEff:\t00000000a80425fb\nSeccomp:\t2\n")
    (tmp_path / "self/mountinfo").write_text("21 1 8:1 / /mnt rw - ext4 /dev/a rw\n")
    for name, text in {
        "kernel/unprivileged_userns_clone": "0\n",
        "user/max_user_namespaces": "7\n",
        "kernel/apparmor_restrict_unprivileged_userns": "1\n",
    }.items():
        (tmp_path / "sys" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "sys" / name).write_text(text)
    assert read_walls(tmp_path) == Walls(
        root=os.geteuid() == 0,
        capable=False,
        cloning=0,
        most={"max_user_namespaces": 7},
        apparmor=1,
        filtered=True,
        chroot=True,
    )


def test_this_host_has_walls_that_can_be_read() -> None:
    walls = read_walls()
    assert not walls.chroot
    assert walls.most["max_user_namespaces"] >= 0
