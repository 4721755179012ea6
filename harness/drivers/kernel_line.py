"""The command line of a kernel that is booted directly (the kernel's kernel-parameters.rst)."""

from collections.abc import Iterable

from harness.drivers.domain_xml import Acceleration

ROOT_DEVICE = "/dev/vda"


def build_command_line(
    acceleration: Acceleration, tsc_khz: int | None, words: Iterable[str] = ()
) -> str:
    """The kernel's command line; ``words`` tell the agent of a root other than an ext4 disk.

    ``earlyprintk`` before ``quiet`` lets out one line as soon as there is a serial port, and that
    first byte is the milestone ``kernel``; later a panic would still be printed. The agent ends a
    guest by ACPI; ``panic=-1 reboot=t`` does it at once where the kernel cannot.
    """
    root = [] if any(word.startswith("harness.root=") for word in words) else [ROOT_DEVICE]
    return " ".join(
        [
            "loglevel=6",
            "earlyprintk=ttyS0,115200",
            "quiet",
            "console=ttyS0",
            "panic=-1",
            "reboot=t",
            "cryptomgr.notests",
            *(f"harness.root={device}" for device in root),
            *words,
            "harness.stop=poweroff",
            *build_emulation_words(acceleration, tsc_khz),
        ]
    )


def build_emulation_words(acceleration: Acceleration, tsc_khz: int | None) -> list[str]:
    """What only an emulated guest's kernel is told.

    It reads the host's time stamp counter but has to find its frequency in loops that the host may
    interrupt, and does not come up when that fails: it is told instead, and spared the test of
    timer interrupts, which fails in the same way.
    """
    if acceleration.name != "tcg":
        return []
    frequency = [] if tsc_khz is None else [f"tsc_early_khz={tsc_khz}"]
    return ["no_timer_check", *frequency]
