"""Control groups v2 on a real kernel that has them: in a guest, whatever this host mounts."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness import cgroup, delegation
from harness.drivers import load_driver
from harness.drivers.base import InstanceSpec, Toolbox
from harness.images.catalog import require_image
from harness.images.model import GuestKernel, Programs
from harness.paths import scratch_root
from tests.integration.laboratory import run_in_lab

LOAD = """
import json, os, subprocess, sys, types
for name in ("harness", "harness.errors", "harness.paths"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["harness.paths"].cache_dir = None
sys.modules["harness.errors"].HostError = ValueError
def load(name, source):
    module = sys.modules[f"harness.{name}"] = types.ModuleType(f"harness.{name}")
    exec(compile(source, f"{name}.py", "exec"), module.__dict__)
    setattr(sys.modules["harness"], name, module)
    return module
delegation, module = load("delegation", sys.argv[1]), load("cgroup", sys.argv[2])
"""
CHECK = """
control = module.MOUNT / "cgroup.subtree_control"
control.write_text("+memory +pids")  # as some hosts have it: no quota of CPU time yet
seen = {"before": control.read_text().split()}
seen["home"] = module._find_home(module.find_hierarchy(module.MOUNT / "x")) == module.MOUNT
tree = module.find_tree("guest")
folders = tree.start("one")
module.set_limits(folders, 64 << 20, 0.5)
with module.entered(folders):
    child = subprocess.Popen(["sleep", "60"])
    spin = subprocess.run(["sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"])
seen["version"] = tree.version
seen["back"] = open("/proc/self/cgroup").read().strip()
seen["processes"] = module.read_processes(folders) == (child.pid,)
seen["max"] = (folders[0] / "memory.max").read_text().strip()
seen["limit"] = module.read_memory_limit(folders)
seen["quota"] = (folders[0] / "cpu.max").read_text().strip()
time = module.read_cpu_time(folders)
seen["cpu"] = time.total > 0 and abs(time.total - time.user - time.system) < 0.01
charge = module.read_memory(folders)
seen["memory"] = 0 < charge.anon + charge.file + charge.kernel <= charge.total + (1 << 20)
hog = "import os; open('%s/cgroup.procs', 'w').write('0'); b'x' * (100 << 20)" % folders[0]
seen["killed"] = subprocess.run([sys.executable, "-c", hog], stderr=subprocess.DEVNULL).returncode
seen["kills"] = module.read_oom_kills(folders)
module.kill_processes(folders)
seen["child"] = child.wait(10)
seen["left"] = module.remove(folders) + module.remove(tree.roots)
control.write_text("-memory")
delegation.CONTROLLERS = ("cpu", "pids")  # a host that gives no account of memory
seen["without"] = module.find_tree("none") is None and not (module.MOUNT / "harness-none").exists()
print("SEEN" + json.dumps(seen), flush=True)
print("DONE", flush=True)
"""
DELEGATED = """
from pathlib import Path
top = module.MOUNT
(top / "cgroup.subtree_control").write_text("+memory +pids +cpu")
given = top / "user.slice" / "given.scope"
given.mkdir(parents=True)
(given.parent / "cgroup.subtree_control").write_text("+memory +pids +cpu")
for path in (given, given / "cgroup.procs", given / "cgroup.subtree_control"):
    os.chown(path, 1000, 1000)
(given / "cgroup.procs").write_text("0")
shell = subprocess.Popen(["sleep", "600"])  # what lives there besides
os.setresgid(1000, 1000, 1000)
os.setresuid(1000, 1000, 1000)
def where(pid):
    return Path(f"/proc/{pid}/cgroup").read_text().strip()
seen = {"before": module.find_tree("r")}
with module.settled() as stay:
    seen["base"] = str(stay.base)
    seen["moved"] = [where("self"), where(shell.pid)]
    tree = module.find_tree("r")
    folders = tree.start("harness-r-1")
    seen["path"] = module.build_path(folders, "container")
    module.set_limits(folders, 64 << 20, 0.5, 50)
    seen["limits"] = [(folders[0] / n).read_text().strip() for n in ("memory.max", "pids.max")]
    with module.entered(folders):
        inside = where("self")
    seen["entered"] = [inside, where("self")]
    seen["memory"] = module.read_memory(folders) is not None
    seen["outer"] = [str(each) for each in module.list_outer(folders)][:1]
    with delegation.settled(top) as second:  # another run in the same group
        seen["second"] = [str(second.base), where("self")]
    seen["kept"] = delegation.is_open(given)
    seen["left"] = module.remove(folders) + module.remove(tree.roots)
seen["after"] = [where("self"), where(shell.pid), delegation.is_open(given)]
seen["gone"] = [each.name for each in given.iterdir() if each.is_dir()]
with module.settled():  # what a run leaves whose processes were killed
    delegation._put_back = lambda *_: None
tree = module.find_tree("r")
exec(compile(sys.argv[1], "delegation.py", "exec"), delegation.__dict__)
tree.roots[0].rmdir()
delegation.clean_up(given)
seen["cleaned"] = [where("self"), [each.name for each in given.iterdir() if each.is_dir()]]
(given / "cgroup.subtree_control").write_text("+pids")  # what its user has on stays on
with module.settled():
    pass
left = [each.name for each in given.iterdir() if each.is_dir()]
seen["on"] = [(given / "cgroup.subtree_control").read_text().split(), left]
os.chmod(given, 0o555)
seen["closed"] = [module.find_tree("r"), module.explain_missing()]
print("SEEN" + json.dumps(seen), flush=True)
print("DONE", flush=True)
"""
SCRIPT = (
    'mount -t cgroup2 none /sys/fs/cgroup && exec python3 -c "$LOAD$CHECK" "$DELEGATION" "$CGROUP"'
)


def look(check: str, kernel: GuestKernel, programs: Programs, folder: Path) -> dict[str, Any]:
    """What a script sees in a guest that has control groups of version 2 alone."""
    image = require_image("python", print)
    sources = {each.__name__.rpartition(".")[2].upper(): Path(str(each.__file__)).read_text()
               for each in (cgroup, delegation)}  # fmt: skip

    def start(run_id: str) -> str:
        scratch = scratch_root() / run_id
        (scratch / "one").mkdir(parents=True)
        toolbox = Toolbox(programs.starter, kernel, accelerator="tcg", scratch=scratch)
        spec = InstanceSpec(
            name=f"{run_id}-one",
            folder=scratch / "one",
            image=image,
            command=("sh", "-c", SCRIPT),
            environment={"LOAD": LOAD, "CHECK": check, **sources},
            ready="output:DONE",
            memory=512 << 20,
            timeout=360,
        )
        with load_driver("vm-microvm", toolbox).start_instance(spec) as instance:
            instance.wait_ready()
            instance.stop()
            output: str = instance.channel.output.decode()
            return output

    output = run_in_lab(start, folder)
    line = next(line for line in output.splitlines() if line.startswith("SEEN"))
    seen: dict[str, Any] = json.loads(line.removeprefix("SEEN"))
    return seen


@pytest.mark.timeout(240)
def test_a_delegated_group_is_divided_and_given_back(
    guest_kernel: GuestKernel, programs: Programs, tmp_path: Path
) -> None:
    """An ordinary user's, with a process in it that is not the run's."""
    given = "/user.slice/given.scope"
    home = f"0::{given}/{delegation.HOME}"
    assert look(DELEGATED, guest_kernel, programs, tmp_path) == {
        "before": None,
        "base": f"/sys/fs/cgroup{given}",
        "moved": [home, home],
        "path": f"{given}/harness-r/harness-r-1/container",
        "limits": [str(64 << 20), "50"],
        "entered": [f"0::{given}/harness-r/harness-r-1", home],
        "memory": True,
        "outer": [f"/sys/fs/cgroup{given}"],
        "second": [f"/sys/fs/cgroup{given}", home],
        "kept": True,
        "left": [],
        "after": [f"0::{given}", f"0::{given}", False],
        "gone": [],
        "cleaned": [f"0::{given}", []],
        "on": [["pids"], []],
        "closed": [
            None,
            f"the control group {given} is not this user's to divide "
            f"({delegation.SCOPE} COMMAND gives it one)",
        ],
    }


@pytest.mark.timeout(240)
def test_groups_of_v2_are_made_limited_read_and_removed(
    guest_kernel: GuestKernel, programs: Programs, tmp_path: Path
) -> None:
    seen = look(CHECK, guest_kernel, programs, tmp_path)
    assert seen == {
        "before": ["memory", "pids"],
        "home": True,
        "version": 2,
        "back": "0::/",
        "processes": True,
        "max": str(64 << 20),
        "limit": 64 << 20,
        "quota": "50000 100000",
        "cpu": True,
        "memory": True,
        "killed": -9,
        "kills": 1,
        "child": -9,
        "left": [],
        "without": True,
    }
