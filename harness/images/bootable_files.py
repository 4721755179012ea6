"""The files that make a Debian tree boot and run the agent: units, scripts, GRUB's words, as text.

What is said on the first serial port is described in agent/PROTOCOL.md. Each of those lines has a
newline before it, since firmware and kernel may leave the cursor anywhere.
"""

from harness.images.recipes import AGENT
from harness.images.rootfs import Entry, build_file, build_folder, build_symlink

IMAGE_ROOT = "srv/image"
"""Where an image is mounted that is not itself a system with apt."""
IMAGE_PARTITION = "image"
"""The name of the partition that such an image lies on."""

PORT = "/dev/virtio-ports/harness.channel"
UNIT = "harness.service"
MOUNT_UNIT = "srv-image.mount"
"""systemd.mount(5): a mount unit is named by its path."""
DISCARD_UNIT = "harness-discard.service"
DISCARD_WORD = "rootflags=discard"
"""On the kernel's command line: the disk is told what the guest deletes."""
SYSTEM_SCRIPT = ".harness/system"

OEM_PREFIX = "harness.kernel="
"""A machine whose last SMBIOS OEM string begins so adds the rest to the kernel's command line."""

_PORT_UNIT = r"dev-virtio\x2dports-harness.channel.device"
_WANTS = "etc/systemd/system/multi-user.target.wants"
_INITRAMFS = "etc/initramfs-tools"

_MODULES = ("virtio_pci", "virtio_blk", "ext4", "crc32c_generic")

_CONFIG = """\
# Only what a virtual machine's disk needs, so that it is read and unpacked fast.
MODULES=list
COMPRESS={compression}
RESUME=none
"""
_HOOK = """\
#!/bin/sh
[ "$1" = prereqs ] && exit 0
. /usr/share/initramfs-tools/hook-functions
for name in {modules}; do
    manual_add_modules "$name"
done
"""
_SAY = """\
#!/bin/sh
[ "$1" = prereqs ] && {{ echo "{after}"; exit 0; }}
printf '\\n@harness {word}\\n' >/dev/console
"""

_SYSTEM = """\
#!/bin/sh
# What systemd knows of this boot, by the guest's own clock; ends by itself within half a minute.
export SYSTEMD_PAGER= SYSTEMD_COLORS=0 LC_ALL=C.UTF-8
names=Version,Environment,NNames,NJobs,NFailedUnits,SystemState
for stage in Firmware Loader Kernel InitRD Userspace SecurityStart SecurityFinish \\
    GeneratorsStart GeneratorsFinish UnitsLoadStart UnitsLoadFinish Finish; do
    names="$names,${stage}TimestampMonotonic"
done
timeout -s KILL 10 systemctl show --property="$names"
timeout -s KILL 5 systemctl show --property=Id,InactiveExitTimestampMonotonic UNIT
if timeout -s KILL 5 systemctl show --property=FinishTimestampMonotonic | grep -q '=[1-9]'; then
    timeout -s KILL 10 systemd-analyze blame | head -n 40
fi
exit 0
"""

_EARLY = """\
serial --unit=0 --speed=115200
terminal_output serial
echo
echo "@harness loader"
set kind={kind}
export kind
configfile /boot/grub/grub.cfg
echo
echo "@harness fail the boot loader could not start the kernel"
"""


def build_early_config(kind: str) -> str:
    """What GRUB's core does by itself; the last line is reached only when nothing was booted.

    ``kind`` is the ending of its commands that load a kernel: see `build_grub_config`.
    """
    return _EARLY.format(kind=kind)


def build_command_line(partition: str) -> str:
    """The kernel's command line; ``partition`` is the PARTUUID of the root file system.

    ``earlyprintk`` before ``quiet`` lets out a first line as soon as there is a serial port. Cloud
    images too keep the kernel's names of interfaces (``net.ifnames=0``): they need no renaming.
    """
    words = [
        f"root=PARTUUID={partition}",
        "rw",
        "loglevel=6",
        "earlyprintk=ttyS0,115200",
        "quiet",
        "console=ttyS0",
        "panic=-1",
        "cryptomgr.notests",
        "net.ifnames=0",
    ]
    return " ".join(words)


def build_grub_config(release: str, command_line: str) -> str:
    """``/boot/grub/grub.cfg``: no menu, and no wait.

    The offset 4 of an SMBIOS structure of type 11 holds the number of its strings, and so the
    number of the last one. With UEFI the kernel is entered by its EFI stub: GRUB's other way would
    look for a video mode and complain in the kernel's place. GRUB 2.12 does so by itself; before,
    distributions had the command ``linuxefi`` for it, and the core says as ``kind`` whether it has
    that. A machine with too little memory ends
    here, before a kernel that would find no root file system.
    """
    return f"""\
if smbios --type 11 --get-string 4 --set oem; then
    regexp --set 1:extra '^{OEM_PREFIX}(.*)$' "$oem"
fi
if linux$kind /boot/vmlinuz-{release} {command_line} $extra; then
    if initrd$kind /boot/initrd.img-{release}; then
        echo
        echo "@harness boot"
        boot
    fi
fi
"""


def build_unit(image_root: str | None) -> str:
    """The systemd unit that runs the agent; with ``image_root`` the workload sees only that tree.

    It is bound to the port, so a machine without one boots as well. systemd powers the machine off
    once the agent has ended.
    """
    command = f"/{AGENT} {PORT}"
    binds = needs = ""
    if image_root:
        command += f" --root=/{image_root}"
        pairs = (f"/{name}:/{image_root}/{name}" for name in ("dev", "proc", "sys"))
        binds = f"BindPaths={' '.join(pairs)}\n"
        needs = f"RequiresMountsFor=/{image_root}\nWants={DISCARD_UNIT}\nAfter={DISCARD_UNIT}\n"
    return f"""\
[Unit]
Description=Workload of the benchmark
BindsTo={_PORT_UNIT}
After={_PORT_UNIT}
{needs}SuccessAction=poweroff
FailureAction=poweroff

[Service]
Type=simple
ExecStart={command}
{binds}StandardOutput=tty
StandardError=tty

[Install]
WantedBy=multi-user.target
"""


def build_mount_units(image_root: str) -> list[Entry]:
    """What mounts the image's partition there, and what tells its disk of deleted blocks if the
    kernel's command line asks for that of the root."""
    mount = f"""\
[Unit]
Description=Image of the workload

[Mount]
What=/dev/disk/by-partlabel/{IMAGE_PARTITION}
Where=/{image_root}
Type=ext4
"""
    discard = f"""\
[Unit]
Description=Deleted blocks of the image go back to the host
ConditionKernelCommandLine={DISCARD_WORD}
RequiresMountsFor=/{image_root}

[Service]
Type=oneshot
ExecStart=/bin/mount -o remount,discard /{image_root}
"""
    return [
        build_folder(image_root),
        build_file(f"etc/systemd/system/{MOUNT_UNIT}", mount.encode()),
        build_file(f"etc/systemd/system/{DISCARD_UNIT}", discard.encode()),
    ]


def build_early_files(compression: str = "zstd") -> list[Entry]:
    """What must be there before the kernel is installed, as that makes the initramfs."""
    config = _CONFIG.format(compression=compression)
    hook = _HOOK.format(modules=" ".join(_MODULES))
    first = _SAY.format(after="", word="initramfs")
    last = _SAY.format(after="udev", word="system")
    return [
        build_file(f"{_INITRAMFS}/conf.d/harness", config.encode()),
        build_file(f"{_INITRAMFS}/hooks/harness", hook.encode(), 0o755),
        build_file(f"{_INITRAMFS}/scripts/init-top/harness", first.encode(), 0o755),
        build_file(f"{_INITRAMFS}/scripts/init-bottom/harness", last.encode(), 0o755),
    ]


def build_late_files(release: str, partition: str, image_root: str | None) -> list[Entry]:
    """What is added to the installed system: the units and GRUB's configuration."""
    config = build_grub_config(release, build_command_line(partition))
    return [
        *(build_mount_units(image_root) if image_root else ()),
        build_file(f"etc/systemd/system/{UNIT}", build_unit(image_root).encode()),
        build_symlink(f"{_WANTS}/{UNIT}", f"/etc/systemd/system/{UNIT}"),
        build_file("boot/grub/grub.cfg", config.encode()),
    ]


def build_system_script() -> Entry:
    """The script that prints systemd's view of the boot."""
    return build_file(SYSTEM_SCRIPT, _SYSTEM.replace("UNIT", UNIT).encode(), 0o755)
