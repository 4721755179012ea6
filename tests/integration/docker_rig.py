"""What the tests of Docker share: drivers of one run, and a daemon that plays a user's."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from harness import cgroup
from harness.drivers import load_driver
from harness.drivers.base import Toolbox
from harness.drivers.docker_api import find_daemon_fault
from harness.errors import TrialError
from harness.images.model import Image, Programs
from harness.paths import scratch_root
from tests.integration.laboratory import build_spec


class Bench:
    """Drivers of one run that share its daemon."""

    def __init__(self, image: Image, programs: Programs, run_id: str, host: str | None) -> None:
        self.image, self.run_id = image, run_id
        self.toolbox = Toolbox(
            starter=programs.starter,
            scratch=scratch_root() / run_id,
            run_id=run_id,
            start_engines=host is None,
            docker_host=host or "unix:///nowhere/docker.sock",
        )
        self.stack = ExitStack()

    def __enter__(self) -> "Bench":
        (scratch_root() / self.run_id).mkdir(parents=True, exist_ok=True)
        self.driver = load_driver("docker", self.toolbox)
        assert self.driver.unavailable() is None
        first = build_spec(self.image, self.run_id, "first")
        self.stack.enter_context(self.driver.start_run([first]))
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    @contextmanager
    def instance(self, name: str, platform: str = "docker", **changes: Any) -> Iterator[Any]:
        driver = load_driver(platform, self.toolbox)
        image = changes.pop("image", self.image)
        spec = build_spec(image, self.run_id, name, **changes)
        with driver.start_run([]), driver.start_instance(spec) as instance:
            instance.wait_ready()
            yield instance

    def fail(self, name: str, platform: str = "docker", **changes: Any) -> str:
        try:
            with self.instance(name, platform, **changes):
                return ""
        except TrialError as error:
            return str(error)


@contextmanager
def start_users_daemon(folder: Path, **changes: object) -> Iterator[str]:
    """A daemon outside the lab, as a user's: with its own data, and no bridge."""
    config = {
        "data-root": str(folder / "data"), "exec-root": str(folder / "exec"),
        "pidfile": str(folder / "pid"), "hosts": [f"unix://{folder}/s"], "bridge": "none",
        "iptables": False, "exec-opts": ["native.cgroupdriver=cgroupfs"],
        "cgroup-parent": "/harness-test-user", **changes,
    }  # fmt: skip
    (folder / "daemon.json").write_text(json.dumps(config))
    script = 'mount -t tmpfs tmpfs /run && exec dockerd --config-file "$0"'
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*words, str(folder / "daemon.json")], stdout=log, stderr=subprocess.STDOUT
        )
    host = f"unix://{folder}/s"
    try:
        for _ in range(200):
            if find_daemon_fault(host) is None:
                break
            time.sleep(0.1)
        yield host
    finally:
        process.terminate()
        process.wait(20)
        groups = [each / "harness-test-user" for each in cgroup.MOUNT.iterdir()]
        cgroup.remove([group for group in groups if group.is_dir()])
