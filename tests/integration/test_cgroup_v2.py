"""Control groups v2 on a real kernel that has them: in a guest, whatever this host mounts."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness import cgroup
from harness.drivers import load_driver
from harness.drivers.base import InstanceSpec, Toolbox
from harness.images.catalog import require_image
from harness.images.model import GuestKernel, Programs
from harness.paths import scratch_root
from tests.integration.laboratory import run_in_lab

CHECK = """
import json, os, subprocess, sys, types
for name in ("harness", "harness.paths"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["harness.paths"].cache_dir = None
module = types.ModuleType("cgroup")
sys.modules["cgroup"] = module
exec(compile(sys.argv[1], "cgroup.py", "exec"), module.__dict__)
control = module.MOUNT / "cgroup.subtree_control"
control.write_text("+memory +pids")  # as some hosts have it: no quota of CPU time yet
seen = {"before": control.read_text().split()}
seen["home"] = module._read_homes([module.MOUNT / "x"]) == [module.MOUNT]
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
module.V2_CONTROLLERS = ("cpu", "pids")  # a host that gives no account of memory
seen["without"] = module.find_tree("none") is None and not (module.MOUNT / "harness-none").exists()
print("SEEN" + json.dumps(seen), flush=True)
print("DONE", flush=True)
"""
SCRIPT = 'mount -t cgroup2 none /sys/fs/cgroup && exec python3 -c "$CHECK" "$MODULE"'


@pytest.mark.timeout(240)
def test_groups_of_v2_are_made_limited_read_and_removed(
    guest_kernel: GuestKernel, programs: Programs, tmp_path: Path
) -> None:
    image = require_image("python", print)
    source = Path(cgroup.__file__).read_text()

    def check(run_id: str) -> str:
        scratch = scratch_root() / run_id
        (scratch / "one").mkdir(parents=True)
        toolbox = Toolbox(programs.starter, guest_kernel, accelerator="tcg", scratch=scratch)
        spec = InstanceSpec(
            name=f"{run_id}-one",
            folder=scratch / "one",
            image=image,
            command=("sh", "-c", SCRIPT),
            environment={"CHECK": CHECK, "MODULE": source},
            ready="output:DONE",
            memory=512 << 20,
            timeout=360,
        )
        with load_driver("vm-microvm", toolbox).start_instance(spec) as instance:
            instance.wait_ready()
            instance.stop()
            output: str = instance.channel.output.decode()
            return output

    output = run_in_lab(check, tmp_path)
    line = next(line for line in output.splitlines() if line.startswith("SEEN"))
    seen: dict[str, Any] = json.loads(line.removeprefix("SEEN"))
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
