"""The keys of a workload file, with their defaults and meanings; the reference page reads them."""

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from harness.figures import Stream


class FigureKeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The keys of a figure of a workload."""

    name: Annotated[
        str,
        Meta(
            description="What it is: one of the metrics `efficiency.*` without that word; "
            "`duration` is what the tool itself says of it",
            examples=["throughput"],
        ),
    ]
    unit: Annotated[
        str,
        Meta(
            description="The tool's unit: `1/s`, `1/min`; `B/s`, `MiB/s`, `Mbit/s` and their like; "
            "`s`, `ms`, `us`, `ns`, also as the time that one piece of a `throughput` takes; "
            "`auto`: it is the second group of the `regex`",
            examples=["1/s"],
        ),
    ]
    of: Annotated[
        str,
        Meta(
            description="What is counted, where a workload has several figures of one name",
            examples=["read"],
        ),
    ] = ""
    stream: Annotated[
        Stream | UnsetType,
        Meta(
            description="Who prints it: the workload, the load command, or either on standard "
            "error. Default: the load command, where there is one",
            examples=["errors"],
        ),
    ] = UNSET
    json: Annotated[
        str | None,
        Meta(
            description="Where it stands in JSON, as a pointer (RFC 6901)",
            examples=["/jobs/0/read/iops"],
        ),
    ] = None
    csv: Annotated[
        tuple[str, ...] | None,
        Meta(
            description="Where it stands in CSV: first cell of its row (empty: the first row) and "
            "name of its column",
            examples=[["SET", "rps"]],
        ),
    ] = None
    regex: Annotated[
        str | None,
        Meta(
            description="Or a regular expression whose first group is the number; the last match "
            "counts",
            examples=["did (.+) a second"],
        ),
    ] = None


class WorkloadKeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The keys of a workload file."""

    name: Annotated[
        str, Meta(description="What the workload is called in results and plots", examples=["mine"])
    ]
    description: Annotated[
        str, Meta(description="One line for `list workloads`", examples=["starts my service"])
    ] = ""
    image: Annotated[str, Meta(description="The image that the command runs in", examples=["tiny"])]
    command: Annotated[
        Annotated[tuple[str, ...], Meta(min_length=1)] | UnsetType,
        Meta(
            description="The command and its arguments; no shell unless it says so. Default: the "
            "imported image's own, entry point and command",
            examples=[["sh", "-c", "echo up"]],
        ),
    ] = UNSET
    ready: Annotated[
        str,
        Meta(
            description="When it is ready: `exit` (ended with 0), `output:TEXT` (printed TEXT) "
            "or `tcp:PORT` (the port accepts)",
            examples=["output:up"],
        ),
    ]
    request: Annotated[
        str | None,
        Meta(
            description="A GET from the host once it is ready; its first answer is `response`",
            examples=["http://:8080/"],
        ),
    ] = None
    timeout: Annotated[
        str | None,
        Meta(description="The longest wait for `ready`; default: the plan's", examples=["60s"]),
    ] = None
    environment: Annotated[
        dict[str, str],
        Meta(
            description="Environment variables of the command; they win over the imported image's",
            examples=[{"LANG": "C"}],
        ),
    ] = {}
    directory: Annotated[
        str | None,
        Meta(
            description="Working directory of the command. Default: the imported image's own, "
            "else `/`",
            examples=["/srv"],
        ),
    ] = None
    user: Annotated[
        str | None,
        Meta(
            description="Whom the command runs as: `name`, `uid`, `name:group` or `uid:gid`, as "
            "the image's own /etc/passwd and /etc/group have them. Default: the imported image's "
            "own, else root",
            examples=["www-data"],
        ),
    ] = None
    skip: Annotated[
        tuple[str, ...],
        Meta(description="Platforms that it is not run on", examples=[["process"]]),
    ] = ()
    load: Annotated[
        tuple[str, ...],
        Meta(
            description="A command that loads the service from the host once it is ready, no shell "
            "unless it says so; `{address}` and `{port}` (of `ready`) are filled in",
            examples=[["wrk", "-d2s", "http://{address}:{port}/"]],
        ),
    ] = ()
    load_threads: Annotated[
        int,
        Meta(
            ge=1,
            le=256,
            description="How many threads the load command has: it is saturated when it uses over "
            "90 % of so many CPUs",
            examples=[1],
        ),
    ] = 1
    figures: Annotated[
        tuple[FigureKeys, ...],
        Meta(
            description="What running the work costs, read from what is printed: tables of "
            "[keys](#figures). Without `load` the work is over when the workload ends",
            examples=[[{"name": "throughput", "unit": "1/s", "regex": "did (.+) a second"}]],
        ),
    ] = ()
    brings: Annotated[
        tuple[str, ...],
        Meta(
            description="[Marks](#marks) that its work itself brings about, so that they are no "
            "disturbance of it. Where it has figures, `throttled` is one of them: work takes all "
            "that it may get",
            examples=[["pressure-io"]],
        ),
    ] = ()
