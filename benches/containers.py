"""`namespace` beside a C program that does the same, and beside `crun run` of the same root."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benches.available import list_available, tell_left_out
from benches.rig import Measure, Samples, build_spec, run_interleaved, time_command
from harness import cgroup, linux
from harness.drivers import load_driver
from harness.drivers.base import Toolbox
from harness.drivers.commanded import find_program
from harness.images.catalog import require_image
from harness.images.model import Image
from harness.images.programs import SOURCES, build_compile, build_programs, require_compiler
from harness.paths import scratch_root
from harness.process import run_command

REFERENCE = Path(__file__).parent / "native" / "reference_container.c"


def measure_containers(repeats: int = 30) -> Samples:
    """Seconds: `namespace` to `ready`; the reference program and `crun run`, whole commands."""
    image = require_image("tiny", print)
    starter = build_programs().starter
    with tempfile.TemporaryDirectory() as folder:
        reference = build_reference(Path(folder))
        return run_interleaved(
            lambda run_id: build_measures(run_id, image, starter, reference), repeats
        )


def build_reference(folder: Path) -> Path:
    """The C program, built into a folder."""
    reference = folder / "reference"
    command = build_compile(require_compiler(), REFERENCE, reference)
    run_command([*command, f"-I{SOURCES}", "-Wno-unused-function"], timeout=60)
    return reference


def build_measures(
    run_id: str, image: Image, starter: Path, reference: Path
) -> Mapping[str, Measure]:
    scratch = scratch_root() / run_id
    scratch.mkdir(parents=True)
    tree = cgroup.find_tree(run_id)
    if tree is None:
        tell_left_out("namespace", "this benchmark needs control groups")
        return {}
    driver = load_driver("namespace", Toolbox(starter=starter))

    def start_namespace(number: int) -> float:
        spec = build_spec(f"n{number}", scratch, image, tree)
        with driver.start_instance(spec) as instance:
            instance.wait_ready()
            stamps = dict(instance.milestones)
        cgroup.remove(spec.cgroups)
        return (stamps["ready"] - stamps["request"]) / 1e9

    def run_reference(number: int) -> float:
        parts = make_folders(scratch / f"c{number}")
        return time_command([reference, image.tree, *parts, "/bin/true"])

    crun = find_program("crun") or "crun"

    def run_crun(number: int) -> float:
        bundle = scratch / f"r{number}"
        upper, work, root, _ = make_folders(bundle)
        linux.mount(
            "overlay", root, "overlay", 0, f"lowerdir={image.tree},upperdir={upper},workdir={work}"
        )
        (bundle / "config.json").write_text(json.dumps(build_oci_config(root)))
        try:
            return time_command([crun, "run", "--bundle", bundle, f"b{number}"])
        finally:
            linux.unmount(root)

    measures: dict[str, Measure] = {"namespace": start_namespace, "reference": run_reference}
    return measures | ({"crun": run_crun} if list_available(["crun"]) else {})


def make_folders(parent: Path) -> tuple[Path, Path, Path, Path]:
    """What an overlay needs, below a new folder: upper, work, merged, run."""
    folders = tuple(parent / name for name in ("upper", "work", "merged", "run"))
    for folder in folders:
        folder.mkdir(parents=True)
    return folders[0], folders[1], folders[2], folders[3]


def build_oci_config(root: Path) -> dict[str, object]:
    """crun's own default configuration (`crun spec`), with our root and `true` as command."""
    with tempfile.TemporaryDirectory() as folder:
        run_command(["crun", "spec"], timeout=10, cwd=Path(folder))
        config: dict[str, object] = json.loads((Path(folder) / "config.json").read_text())
    process = config["process"]
    assert isinstance(process, dict)
    process.update({"args": ["true"], "terminal": False})
    config["root"] = {"path": os.fspath(root)}
    return config
