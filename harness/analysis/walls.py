"""Isolation, limits and containment together: what the report, the terminal and scripts get."""

from harness.analysis.containment import (
    build_documents,
    build_limit_evidence,
    build_limits,
    build_neighbours,
    say_limits,
    say_neighbours,
)
from harness.analysis.isolation import (
    build_cells,
    build_evidence,
    build_matrix,
    find_evidence,
    say_probes,
)
from harness.analysis.results import Results
from harness.analysis.tables import Table


def build_tables(results: Results) -> tuple[Table, ...]:
    """The matrix, the limits and the neighbours: those that were looked at."""
    found = (build_matrix(results), build_limits(results), build_neighbours(results))
    return tuple(table for table in found if table is not None)


def build_folded(results: Results) -> tuple[Table, ...]:
    """All of the raw evidence, for behind a fold."""
    return (*build_evidence(results), *build_limit_evidence(results))


def say_all(results: Results) -> dict[str, tuple[str, ...]]:
    """The answer's sentences by topic; none for what was not looked at."""
    found = {
        "Isolation": say_probes(results),
        "Limits": say_limits(results),
        "Neighbours": say_neighbours(results),
    }
    return {topic: sentences for topic, sentences in found.items() if sentences}


def build_document(results: Results) -> dict[str, object]:
    """Everything for scripts: the matrix, its evidence, limits and containment, failures too."""
    return {
        "run_id": results.manifest["run_id"],
        "matrix": build_cells(results),
        "evidence": dict(find_evidence(results)),
        **build_documents(results),
        "failures": [
            {"platform": each.platform, "task": each.workload, "error": each.error}
            for each in results.failed
        ],
        "left_out": results.manifest.get("left_out", []),
    }
