"""The result folder: what a crash cannot take, and what damage looks like to a user."""

import contextlib
import json
import re
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import HarnessError, HostError, InputError
from harness.model import SCHEMA_VERSION, Measurement, Outcome
from harness.store import Journal, Store, read_journal, read_manifest, safe_name, write_manifest
from harness.store.journal import encode_outcome
from tests.unit.synthetic import Synthetic, build_manifest, build_outcomes

OUTCOMES = list(build_outcomes(Synthetic(("process", "namespace"), (), ("noop",), blocks=2)))

texts = st.text(max_size=20)
outcomes = st.builds(
    Outcome,
    block=st.integers(0, 99),
    trial=st.integers(0, 10**6),
    order=st.integers(0, 99),
    platform=texts,
    kind=st.sampled_from(["process", "container", "sandbox", "vm"]),
    accelerator=texts,
    image=texts,
    workload=texts,
    cache=st.sampled_from(["warm", "cold"]),
    instances=st.integers(0, 99),
    warmup=st.booleans(),
    started_at=texts,
    status=st.sampled_from(["ok", "failed"]),
    milestones=st.dictionaries(texts, st.integers(0, 2**62), max_size=3),
    measurements=st.lists(
        st.builds(
            Measurement, metric=texts, value=st.floats(allow_nan=False, allow_infinity=False)
        ),
        max_size=3,
    ).map(tuple),
    marks=st.lists(texts, max_size=2).map(tuple),
    error=st.none() | texts,
    hint=st.none() | texts,
    details=st.dictionaries(texts, st.integers() | texts | st.lists(texts), max_size=3),
)


def write_journal(path: Path, recorded: list[Outcome]) -> bytes:
    with Journal(path, "r1") as journal:
        for outcome in recorded:
            journal.append(outcome)
    return path.read_bytes()


@settings(max_examples=50, deadline=None)
@given(st.lists(outcomes, max_size=3))
def test_a_journal_gives_back_what_was_recorded(
    tmp_path_factory: pytest.TempPathFactory, recorded: list[Outcome]
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    write_journal(path, recorded)
    assert read_journal(path) == recorded


def test_a_journal_cut_at_any_byte_keeps_every_whole_trial(tmp_path: Path) -> None:
    whole = write_journal(tmp_path / "whole.jsonl", OUTCOMES[:3])
    path = tmp_path / "journal.jsonl"
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        kept = max(whole[:length].count(b"\n") - 1, 0)
        assert read_journal(path) == OUTCOMES[:kept], length


def test_after_a_cut_at_any_byte_the_next_writer_goes_on_cleanly(tmp_path: Path) -> None:
    whole = write_journal(tmp_path / "whole.jsonl", OUTCOMES[:2])
    path = tmp_path / "journal.jsonl"
    for length in range(0, len(whole) + 1, 7):
        path.write_bytes(whole[:length])
        kept = read_journal(path)
        with Journal(path, "r1") as journal:
            journal.append(OUTCOMES[5])
        assert read_journal(path) == [*kept, OUTCOMES[5]], length


def test_zeros_after_a_power_cut_are_an_unfinished_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(write_journal(path, OUTCOMES[:2]) + b"\0" * 512)
    assert read_journal(path) == OUTCOMES[:2]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (b"{not json", "damaged, not a JSON object"),
        (b"[1, 2]", "damaged, not a JSON object"),
        (b"\xff\xfe", "damaged, not a JSON object"),
        (b'{"block": 1}', "not a trial"),
        (b'{"block": "one"}', "not a trial"),
    ],
)
def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path, damage: bytes, reason: str) -> None:
    path = tmp_path / "journal.jsonl"
    lines = write_journal(path, OUTCOMES[:3]).splitlines()
    path.write_bytes(b"\n".join([*lines[:2], damage, *lines[3:]]) + b"\n")
    with pytest.raises(InputError, match=rf"journal\.jsonl, line 3: {reason}"):
        read_journal(path)


def test_an_absent_journal_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"journal\.jsonl cannot be read: No such file"):
        read_journal(tmp_path / "journal.jsonl")


def test_fields_of_a_later_release_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write_journal(path, [])
    line = {**json.loads(encode_outcome(OUTCOMES[0])), "colour": "blue"}
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
    assert read_journal(path) == OUTCOMES[:1]


def test_a_second_writer_is_turned_away(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path, "r1"), pytest.raises(InputError, match="being written by another run"):
        Journal(path, "r1")
    Journal(path, "r1").close()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_no_number_is_refused(value: float) -> None:
    outcome = OUTCOMES[0]
    broken = Outcome(
        **{
            **{name: getattr(outcome, name) for name in Outcome.__slots__},
            "measurements": (Measurement("startup.ready", value),),
        }
    )
    with pytest.raises(HarnessError, match=r"startup\.ready of trial 0"):
        encode_outcome(broken)


def test_a_disk_that_is_full_costs_one_trial_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path, "r1") as journal:
        journal.append(OUTCOMES[0])
        with (
            limit_file_size(path.stat().st_size + 100),
            pytest.raises(HostError, match=r"journal\.jsonl cannot be written: File too large"),
        ):
            journal.append(OUTCOMES[1])
        journal.append(OUTCOMES[2])
    assert read_journal(path) == [OUTCOMES[0], OUTCOMES[2]]


@contextlib.contextmanager
def limit_file_size(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_folder_is_made_once(tmp_path: Path) -> None:
    manifest = build_manifest(Synthetic())
    with Store.create(tmp_path / "r", manifest) as store:
        store.append(OUTCOMES[0])
    with pytest.raises(InputError, match=r"already holds a run \(go on with --resume"):
        Store.create(tmp_path / "r", manifest)


def test_a_folder_opened_again_goes_on(tmp_path: Path) -> None:
    with Store.create(tmp_path / "r", build_manifest(Synthetic())) as store:
        store.append(OUTCOMES[0])
        store.update_manifest({"noise": ["loud"]})
    with Store.open(tmp_path / "r") as store:
        store.append(OUTCOMES[1])
        assert store.read_outcomes() == OUTCOMES[:2]
        assert store.manifest["noise"] == ["loud"]


def test_opening_a_damaged_folder_changes_nothing(tmp_path: Path) -> None:
    Store.create(tmp_path / "r", {"run_id": "r1"}).close()
    path = tmp_path / "r" / "journal.jsonl"
    path.write_bytes(path.read_bytes() + b"{}\n{to")
    before = path.read_bytes()
    with pytest.raises(InputError, match="line 2"):
        Store.open(tmp_path / "r")
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "damaged"),
        ("[]", "damaged"),
        ('{"run_id": "x"}', "no schema version, this release reads version 1"),
        ('{"schema_version": 0, "run_id": "x"}', "schema version 0, this release reads version 1"),
        (
            '{"schema_version": 99, "run_id": "x"}',
            "schema version 99, this release reads version 1.*use a newer release",
        ),
        ('{"schema_version": 1}', "no run_id"),
    ],
)
def test_a_manifest_that_cannot_be_read_says_why(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=f"manifest.json.*{reason}"):
        read_manifest(tmp_path)


def test_a_manifest_is_written_whole_with_its_version(tmp_path: Path) -> None:
    write_manifest(tmp_path, {"run_id": "r1", "path": tmp_path, "name": "Ö"})
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]
    found = read_manifest(tmp_path)
    assert found == {
        "schema_version": SCHEMA_VERSION,
        "run_id": "r1",
        "path": str(tmp_path),
        "name": "Ö",
    }


@pytest.mark.parametrize("name", ["noop", "vm-direct", "my_workload-2"])
def test_a_safe_name_stays(name: str) -> None:
    assert safe_name(name) == name


@given(st.text(), st.text())
def test_names_never_share_a_file(one: str, other: str) -> None:
    assert (safe_name(one) == safe_name(other)) == (one == other)


@given(st.text())
def test_any_name_gives_a_plain_file_name(name: str) -> None:
    safe = safe_name(name)
    assert re.fullmatch("[A-Za-z0-9_-]+", safe)
    assert not safe.startswith("-") or safe == name
    assert len(safe) <= 90
