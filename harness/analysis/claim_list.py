"""The claims that a report tests: the package's own list and the users' files, checked.

Nothing is decided here; `claims` does that from a run's figures.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct, structs

from harness.errors import InputError
from harness.inputs import convert_keys, read_toml, suggest
from harness.metrics import METRICS

FILE = Path(__file__).with_name("claims.toml")
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_WITHOUT_METRIC = ("kernel",)


class Claim(Struct, frozen=True):
    """One claim: what is said, what would have to be measured for it, and what decides it."""

    id: Annotated[
        str,
        Meta(description="Its name, of a-z, 0-9 and -; no two are alike", examples=["small-disk"]),
    ]
    claim: Annotated[
        str,
        Meta(
            description="What is said", examples=["Containers are smaller"],
            min_length=1, max_length=200,
        ),
    ]  # fmt: skip
    hypothesis: Annotated[
        str,
        Meta(
            description="What would have to be measured for it",
            examples=["An image takes less disk space"], min_length=1, max_length=400,
        ),
    ]  # fmt: skip
    metric: Annotated[
        str,
        Meta(
            description="The metric that decides it; not needed by `kernel`",
            examples=["disk.image_allocated"],
        ),
    ] = ""
    by: Annotated[
        Literal["platforms", "bases", "phases", "kernel", "calls"],
        Meta(
            description="What is compared: platforms; the smallest base image with the largest; "
            "two phases of the metric on one platform; whose kernel answers; or how many system "
            "calls of the host's kernel a workload reaches",
            examples=["platforms"],
        ),
    ] = "platforms"
    smaller: Annotated[
        str,
        Meta(
            description="The side whose figure is smaller if the claim holds: a kind "
            "(`process`, `container`, `sandbox`, `vm`), a platform, or a phase",
            examples=["container"], min_length=1,
        ),
    ] = "container"  # fmt: skip
    larger: Annotated[str, Meta(description="The other side", examples=["vm"], min_length=1)] = "vm"


def read_claims(files: Iterable[Path] = ()) -> tuple[Claim, ...]:
    """The package's claims and those of ``files``; raises InputError that names file and remedy."""
    found: dict[str, Claim] = {}
    for path in (FILE, *dict.fromkeys(files)):
        for claim in _read_file(path):
            if claim.id in found:
                raise InputError(
                    f"{path}: there is a claim {claim.id!r} already", hint="give it another id"
                )
            found[claim.id] = claim
    return tuple(found.values())


def list_rows() -> list[dict[str, object]]:
    """One row a claim of the package for `list claims`: every key."""
    return [structs.asdict(claim) for claim in read_claims()]


def _read_file(path: Path) -> list[Claim]:
    document = read_toml(path)
    for key in document:
        if key != "claims":
            raise InputError(f"{path}: unknown key {key!r}", hint="write [[claims]]")
    entries = document.get("claims")
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path}: there is no [[claims]] in it", hint="see `list claims --json`")
    return [_parse_claim(each, f"{path}: claim {number}") for number, each in enumerate(entries, 1)]


def _parse_claim(entry: object, place: str) -> Claim:
    if not isinstance(entry, dict):
        raise InputError(f"{place}: this is no table", hint="write [[claims]]")
    claim = convert_keys(entry, Claim, {}, place)
    if not _ID.fullmatch(claim.id):
        raise InputError(
            f"{place}: id {claim.id!r} cannot be a link", hint="use a-z, 0-9 and -, at most 40"
        )
    _check_metric(claim, place)
    if claim.smaller == claim.larger:
        raise InputError(
            f"{place}: {claim.smaller!r} is held against itself",
            hint="let `smaller` and `larger` differ",
        )
    return claim


def _check_metric(claim: Claim, place: str) -> None:
    if claim.by in _WITHOUT_METRIC:
        return
    if not claim.metric:
        raise InputError(f"{place}: key 'metric' is missing", hint="see `list metrics`")
    if claim.metric not in METRICS:
        raise InputError(
            f"{place}: unknown metric {claim.metric!r}", hint=_suggest_metric(claim.metric, METRICS)
        )
    if claim.by == "calls" and claim.metric != "isolation.calls":
        raise InputError(
            f"{place}: by = 'calls' counts isolation.calls, not {claim.metric}",
            hint='write metric = "isolation.calls"',
        )


def _suggest_metric(name: str, known: Sequence[str] | Iterable[str]) -> str:
    nearest = suggest(name, known, "metrics")
    return nearest if nearest.startswith("did you mean") else "`list metrics` has all of them"
