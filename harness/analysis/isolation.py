"""What isolates each platform: a matrix of probes × platforms, its evidence, and what is said.

Nothing is rated. A cell says what a kernel answered; the records that it was read from stand in a
table of evidence.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from harness.analysis.results import Results
from harness.analysis.tables import Cell, Row, Table
from harness.analysis.wording import ABSENT, describe_platform, quote
from harness.units import format_bytes

Evidence = Mapping[str, Any]
LEAD = (
    "What a workload sees and may do on each platform, asked from inside by the same program, and "
    "whether the limits that it was given hold. Nothing here is a rating: every word can be traced "
    "to a record below."
)
METHOD = (
    "The agent itself asks, as root, in an instance of the same image on every platform "
    "(`/.harness/agent --probe`).",
    "A kernel is the host's where its boot id is the host's, or where the agent is a process in "
    "the host's own table: engines may show a boot id of their own.",
    "A namespace is shared where its link in /proc/self/ns is that of the harness, which runs in "
    "namespaces of its own: the lab.",
    "A system call counts as carried out unless it answers EPERM, EACCES or ENOSYS, or its caller "
    "is killed for it; each number is called once, with arguments that no call takes.",
    "A service of the host counts as reached only where the word that it says was read.",
)
NOTE = (
    "Where another kernel answers, namespaces, capabilities and system calls are that kernel's: "
    "none of these calls reaches the host's kernel as such. What holds the instance is then the "
    "process that runs it, whose own filter is in the row of seccomp («on the host»)."
)
_SHOWN = 40
_AGENT = "agent"


def find_evidence(results: Results) -> dict[str, Evidence]:
    """By platform, in the report's order: what its probe found."""
    found = {
        outcome.platform: cast(Evidence, outcome.details["isolation"])
        for outcome in results.outcomes
        if "isolation" in outcome.details and outcome.status == "ok"
    }
    return {name: found[name] for name in results.platforms if name in found}


def say_unprobed(results: Results, asked: Results) -> str:
    """Which platforms of a run have no evidence in ``asked``, where its isolation is from; empty
    where all have. Nothing may be concluded of these."""
    probed = find_evidence(asked)
    missing = [name for name in results.first_arms if name not in probed]
    if not probed or not missing:
        return ""
    return f"Not probed, so nothing here is said of them: {', '.join(map(quote, missing))}."


def is_alone(results: Results) -> bool:
    """Whether isolation is all that was looked at: no start was timed."""
    asked = any({"isolation", "limits", "containment"} & set(each.details)
                for each in results.outcomes)  # fmt: skip
    return asked and not results.find_metrics("startup.")


# ---- the cells ---------------------------------------------------------------------------------


def has_own_kernel(evidence: Evidence) -> bool:
    """Whether another kernel than the host's answers: its boot id is another, and the agent itself
    is no process of the host. One alone does not tell: engines may show a boot id of their own."""
    other_boot = _word(evidence, "kernel", "boot") != evidence["host"]["boot"]
    return other_boot and not any(each["name"] == _AGENT for each in evidence["outside"])


def find_shared(evidence: Evidence) -> list[str]:
    """The kinds of namespaces that an instance shares with the harness; with a kernel of its own
    it shares none, whatever numbers that gives them."""
    if has_own_kernel(evidence):
        return []
    host = evidence["host"]["namespaces"]
    return [kind for kind in host if _word(evidence, "namespace", kind) == host[kind]]


def count_capabilities(evidence: Evidence) -> int | None:
    """How many capabilities are in effect."""
    text = _word(evidence, "status", "CapEff")
    return int(text, 16).bit_count() if text else None


def _word(evidence: Evidence, table: str, name: str) -> str:
    words = evidence["evidence"][table].get(name) or [""]
    return unescape(str(words[0]))


def _list(evidence: Evidence, name: str) -> list[list[str]]:
    return cast(list[list[str]], evidence["evidence"]["lists"][name])


def _counts(evidence: Evidence, name: str) -> list[str]:
    return cast(list[str], evidence["evidence"]["counts"][name])


def unescape(text: str) -> str:
    """A word of the agent's as it was: `\\xHH` is a byte (agent/PROTOCOL.md)."""
    if "\\x" not in text:
        return text
    raw = text.encode("latin-1", "replace").decode("unicode_escape")
    return raw.encode("latin-1", "replace").decode("utf-8", "replace")


def _build_kernel(evidence: Evidence) -> Cell:
    whose = "its own" if has_own_kernel(evidence) else "the host's"
    return Cell(whose, quote(_word(evidence, "kernel", "release")))


def _build_log(evidence: Evidence) -> Cell:
    answer, size = evidence["evidence"]["kernel"].get("log", ["?", "0"])
    if answer == "ok":
        return Cell("readable", format_bytes(float(size)))
    return Cell("not readable", quote(str(answer)))


def _build_namespaces(evidence: Evidence) -> Cell:
    if has_own_kernel(evidence):
        return Cell("its own kernel's")
    shared = find_shared(evidence)
    count = len(evidence["host"]["namespaces"])
    return Cell(f"{count - len(shared)} of {count} its own", f"shared: {', '.join(shared) or '–'}")


def _build_capabilities(evidence: Evidence) -> Cell:
    count = count_capabilities(evidence)
    if count is None:
        return Cell(ABSENT)
    return Cell(str(count), quote(_word(evidence, "status", "CapEff").lstrip("0") or "0"))


def _build_seccomp(evidence: Evidence) -> Cell:
    modes = {"0": "no filter", "1": "strict", "2": "filter"}
    mode = _word(evidence, "status", "Seccomp")
    filters = {each.get("Seccomp", "?") for each in evidence["outside"]}
    outside = ", ".join(sorted(modes.get(each, each) for each in filters))
    return Cell(modes.get(mode, mode or ABSENT), f"on the host: {outside or ABSENT}")


def _build_privileges(evidence: Evidence) -> Cell:
    words = {"0": "not set", "1": "set", "": "not told"}
    word = _word(evidence, "status", "NoNewPrivs")
    return Cell(words.get(word, word))


def _build_processes(evidence: Evidence) -> Cell:
    names = list(dict.fromkeys(unescape(words[1]) for words in _list(evidence, "processes")))
    shown = ", ".join(map(quote, names[:3])) + (" …" if len(names) > 3 else "")
    return Cell(_counts(evidence, "processes")[0], shown)


def _build_sysctls(evidence: Evidence) -> Cell:
    writable, everything = _counts(evidence, "sysctls")[:2]
    return Cell(f"{writable} of {everything}")


def _build_devices(evidence: Evidence) -> Cell:
    devices = _list(evidence, "devices")
    opened = [words for words in devices if words[3] == "ok"]
    disks = [words[0] for words in opened if words[1] == "b"]
    note = f"disks: {', '.join(map(quote, disks[:3]))}{' …' if len(disks) > 3 else ''}"
    return Cell(f"{len(opened)} of {len(devices)} opened", note if disks else "no disk")


def _build_mounts(evidence: Evidence) -> Cell:
    mounts = _list(evidence, "mounts")
    if not mounts:
        return Cell(ABSENT)
    return Cell(f"{sum(words[2] == 'rw' for words in mounts)} of {len(mounts)}")


def _build_network(evidence: Evidence) -> Cell:
    names = [unescape(words[0]) for words in _list(evidence, "interfaces")]
    count = len(_list(evidence, "routes"))
    return Cell(", ".join(map(quote, names)) or "none", f"routes: {count}")


def find_reached(evidence: Evidence) -> list[str]:
    """The services of the host whose word was read inside, by their names."""
    reach = evidence["evidence"]["reach"]
    return [name for name, (target, word) in evidence["targets"].items()
            if reach.get(target) == ["ok", word]]  # fmt: skip


def _build_reached(evidence: Evidence) -> Cell:
    reached = find_reached(evidence)
    words = [name.removeprefix("host-") for name in reached]
    return Cell(f"{len(reached)} of {len(evidence['targets'])}", ", ".join(words))


def _build_sockets(evidence: Evidence) -> Cell:
    seen, abstract = _counts(evidence, "unix-sockets")[:2]
    return Cell(
        f"{_counts(evidence, 'sockets')[0]} in files", f"seen: {seen}, abstract: {abstract}"
    )


def _build_calls(evidence: Evidence) -> Cell:
    calls = {name: int(words[0]) for name, words in evidence["evidence"]["calls"].items()}
    done = calls["answered"] + calls["waited"]
    whose = "its own kernel" if has_own_kernel(evidence) else "the host's kernel"
    denied = calls["EPERM"] + calls["EACCES"] + calls["killed"]
    return Cell(f"{done} of {sum(calls.values())}", f"by {whose}; denied {denied}")


PROBES: Mapping[str, Callable[[Evidence], Cell]] = {
    "kernel": _build_kernel,
    "kernel log": _build_log,
    "namespaces": _build_namespaces,
    "capabilities in effect": _build_capabilities,
    "seccomp": _build_seccomp,
    "no_new_privs": _build_privileges,
    "processes seen": _build_processes,
    "sysctls that can be written": _build_sysctls,
    "devices": _build_devices,
    "mounts that can be written": _build_mounts,
    "network": _build_network,
    "services of the host reached": _build_reached,
    "Unix sockets": _build_sockets,
    "system calls carried out": _build_calls,
}
"""The rows of the matrix, each with what reads its cell from a platform's evidence."""


def build_matrix(results: Results) -> Table | None:
    """Probe × platform; None where nothing was probed."""
    found = find_evidence(results)
    if not found:
        return None
    heads = ("probe", *(describe_platform(results, name, quoted=True) for name in found))
    rows = tuple(Row(probe, tuple(map(build, found.values()))) for probe, build in PROBES.items())
    return Table("What isolates each platform, seen from inside", heads, rows, NOTE)


# ---- the evidence ------------------------------------------------------------------------------


def build_evidence(results: Results) -> tuple[Table, ...]:
    """A table of records for each platform, then the system calls that were not asked."""
    found = find_evidence(results)
    tables = [
        Table(f"{describe_platform(results, name, quoted=True)}: the probe's records",
              ("what", "records"), tuple(_build_records(each)))
        for name, each in found.items()
    ]  # fmt: skip
    if found:
        left = _list(next(iter(found.values())), "left_out")
        rows = tuple(
            Row(quote(name), (Cell(reason.replace("-", " ")),)) for _, name, reason in left
        )
        heads = ("system call", "why it was not asked")
        tables.append(Table("System calls that were left out", heads, rows))
    return tuple(tables)


def _build_records(evidence: Evidence) -> list[Row]:
    """The raw words, kind by kind; long lists are cut here and whole in the journal."""
    records = evidence["evidence"]
    rows = []
    for table in ("kernel", "namespace", "status", "calls", "reach"):
        shown = [f"{name} {' '.join(words)}" for name, words in records[table].items()]
        rows.append(Row(table, (Cell(_quote_all(shown)),)))
    rows += [
        Row(name, (Cell(_quote_all([" ".join(words) for words in listed])),))
        for name, listed in records["lists"].items()
        if name != "left_out"
    ]
    counts = [f"{name} {' '.join(words)}" for name, words in records["counts"].items()]
    rows.append(Row("counts", (Cell(_quote_all(counts)),)))
    outside = [" ".join(f"{key}={each}" for key, each in found.items())
               for found in evidence["outside"]]  # fmt: skip
    rows.append(Row("its processes on the host", (Cell(_quote_all(outside)),)))
    host = [f"boot {evidence['host']['boot']}", *evidence["host"]["namespaces"].values()]
    return [*rows, Row("the harness itself", (Cell(_quote_all(host)),))]


def _quote_all(lines: Sequence[str]) -> str:
    shown = ", ".join(quote(line) for line in lines[:_SHOWN])
    more = len(lines) - _SHOWN
    return (f"{shown} and {more} more" if more > 0 else shown) or ABSENT


# ---- in words and for scripts ------------------------------------------------------------------


def say_probes(results: Results) -> tuple[str, ...]:
    """Who shares the host's kernel, and how many system calls it carries out for whom."""
    found = find_evidence(results)
    own = [name for name, each in found.items() if has_own_kernel(each)]
    shared = [name for name in found if name not in own]
    sentences = []
    if shared:
        sentences.append(f"The host's kernel answers on {', '.join(map(quote, shared))}.")
    if own:
        sentences.append(f"A kernel of its own answers on {', '.join(map(quote, own))}.")
    counts = [f"{quote(name)} {_build_calls(found[name]).text}" for name in shared]
    if counts:
        sentences.append(f"System calls that the host's kernel carries out: {', '.join(counts)}.")
    return tuple(sentences)


def build_cells(results: Results) -> dict[str, dict[str, dict[str, str]]]:
    """The matrix for scripts: platform, probe, and the text and note of the cell."""
    return {
        platform: {
            probe: {"text": cell.text, "note": cell.note}
            for probe, build in PROBES.items()
            for cell in (build(evidence),)
        }
        for platform, evidence in find_evidence(results).items()
    }
