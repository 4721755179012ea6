"""The result folder: where the measuring and the analysing half meet.

`Store` is what a run writes to; the projections (`write_samples`, `write_pyperf`) are made from
the journal and can be made again at any time. Nothing heavy is imported until it is used.
"""

from harness.store.folder import Store, read_manifest, write_manifest
from harness.store.journal import Journal, is_being_written, read_journal
from harness.store.names import safe_name
from harness.store.pyperf_files import write_pyperf
from harness.store.samples import write_samples

__all__ = [
    "Journal",
    "Store",
    "is_being_written",
    "read_journal",
    "read_manifest",
    "safe_name",
    "write_manifest",
    "write_pyperf",
    "write_samples",
]
