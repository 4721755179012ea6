"""Run a function inside the real lab and bring its result back to the test."""

import json
import traceback
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import lab


def run_in_lab(function: Callable[[str], Any], folder: Path, *, network: bool = True) -> Any:
    """The JSON result of ``function(run_id)`` as the lab's worker; fails with its traceback."""
    answer = folder / f"answer-{uuid.uuid4().hex}.json"
    run_id = f"test{uuid.uuid4().hex[:10]}"

    def work() -> int:
        try:
            answer.write_text(json.dumps({"value": function(run_id)}))
        except BaseException:
            answer.write_text(json.dumps({"error": traceback.format_exc()}))
        return 0

    code = lab.run_inside(work, run_id, network=network)
    assert code == 0, f"the lab ended with {code}"
    result = json.loads(answer.read_text())
    assert "error" not in result, result["error"]
    return result["value"]
