"""The hash chain: what is recorded comes back, what is changed is found, what a kill cut short is repaired and said."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from viewer import ViewerError
from viewer.chain import Chain, beginning, verify

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
entries = st.dictionaries(st.text(max_size=8), json_values, max_size=4)


def written(folder: Path, *contents: dict) -> Path:
    path = folder / "chain.jsonl"
    with Chain(path, "tests") as chain:
        for content in contents:
            chain.append(content, durable=False)
    return path


def small(folder: Path) -> Path:
    return written(folder, {"a": 1}, {"hash": "b" * 64, "text": '","hash":"\n{}'}, {"c": [None, "\ud800"]})


@settings(max_examples=60)
@given(st.lists(entries, max_size=4))
def test_any_json_comes_back_and_the_chain_is_whole(contents):
    with TemporaryDirectory() as folder:
        path = written(Path(folder), *contents)
        seen = []
        found = verify(path, "tests", lambda record: seen.append(record.entry))
        assert seen == contents
        assert found.intact
        assert found.torn is None
        assert found.records == len(contents)
        with Chain(path, "tests") as again:
            assert [record.entry for record in again.records()] == contents
            assert again.head == found.head


@settings(max_examples=150)
@given(st.data())
def test_any_byte_that_is_changed_is_found_and_never_repaired(data):
    with TemporaryDirectory() as folder:
        path = small(Path(folder))
        whole = path.read_bytes()
        place = data.draw(st.integers(0, len(whole) - 1))
        other = data.draw(st.integers(0, 255).filter(lambda value: value != whole[place]))
        changed = whole[:place] + bytes([other]) + whole[place + 1 :]
        path.write_bytes(changed)
        found = verify(path, "tests")
        assert found.broken == whole[:place].count(b"\n") + 1
        with pytest.raises(ViewerError, match=f"line {found.broken} is not what was written"):
            Chain(path, "tests")
        assert path.read_bytes() == changed


def test_every_cut_of_the_last_line_is_repaired_and_said_and_none_is_lost_before_it(tmp_path):
    whole = small(tmp_path).read_bytes()
    last = whole.rstrip(b"\n").rindex(b"\n") + 1
    for end in range(last + 1, len(whole)):
        path = tmp_path / str(end) / "chain.jsonl"
        path.parent.mkdir()
        path.write_bytes(whole[:end])
        assert verify(path, "tests").torn is not None
        told: list[str] = []
        with Chain(path, "tests", say=told.append) as chain:
            assert len(told) == 1
            assert chain.repaired is not None
            kept = len(chain)
            chain.append({"after": end}, durable=False)
        assert verify(path, "tests").records == kept + 1
        if end < len(whole) - 1:
            (aside,) = path.parent.glob("chain.jsonl.torn-*")
            assert kept == 2
            assert aside.read_bytes() == whole[last:end]
        else:  # all but the line's end: nothing is missing of the record
            assert kept == 3


def test_zeros_that_a_power_cut_left_are_a_line_that_was_cut_short(tmp_path):
    path = small(tmp_path)
    path.write_bytes(path.read_bytes() + b"\0" * 300)
    with Chain(path, "tests") as chain:
        assert len(chain) == 3


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines[1:],
        lambda lines: [lines[0], *lines[2:]],
        lambda lines: [lines[1], lines[0], lines[2]],
        lambda lines: [lines[0], lines[0], *lines[1:]],
        lambda lines: [lines[0], b"\n", *lines[1:]],
        lambda lines: [lines[0].replace(b'"a":1', b'"a":2'), *lines[1:]],
        lambda lines: [line.rstrip(b"\n") + b" \n" for line in lines],
    ],
)
def test_lines_taken_out_moved_doubled_or_edited_break_the_chain(tmp_path, change):
    path = small(tmp_path)
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
    assert not verify(path, "tests").intact


def test_a_chain_that_was_made_anew_whole_is_told_by_a_digest_that_was_kept(tmp_path):
    path = small(tmp_path)
    kept = verify(path, "tests").head
    path.unlink()
    written(tmp_path, {"a": 2})
    digests: list[str] = []
    assert verify(path, "tests", lambda record: digests.append(record.digest)).intact
    assert kept not in digests


def test_a_chain_of_another_purpose_is_refused(tmp_path):
    with pytest.raises(ViewerError, match="line 1"):
        Chain(small(tmp_path), "others")


def test_a_chain_that_is_not_there_is_empty(tmp_path):
    found = verify(tmp_path / "none", "tests")
    assert (found.records, found.head, found.intact) == (0, beginning("tests"), True)


def test_what_is_no_json_is_refused_and_the_chain_goes_on(tmp_path):
    with Chain(tmp_path / "chain", "tests") as chain:
        for content in ({"a": float("nan")}, {"a": object()}, {"a": "x" * (1 << 24)}):
            with pytest.raises(ViewerError):
                chain.append(content)
        chain.append({"a": 1})
    assert verify(tmp_path / "chain", "tests").records == 1


def test_a_full_disk_leaves_the_chain_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "chain"
    with Chain(path, "tests") as chain:
        chain.append({"a": 1})
        before = path.read_bytes()
        real = os.write
        with monkeypatch.context() as patch:
            calls = []

            def half(descriptor, data):
                calls.append(1)
                if len(calls) > 1:
                    raise OSError(28, "No space left on device")
                return real(descriptor, data[:7])

            patch.setattr(os, "write", half)
            with pytest.raises(ViewerError, match="nothing was recorded"):
                chain.append({"a": 2})
        assert path.read_bytes() == before
        chain.append({"a": 3})
    assert [json.loads(line)["entry"]["a"] for line in path.read_text().splitlines()] == [1, 3]


def test_the_file_is_its_owners_alone_and_no_link(tmp_path):
    path = small(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ViewerError):
        Chain(tmp_path / "link", "tests")


WRITER = """
import sys
from pathlib import Path
from viewer.chain import Chain
chain, number = Chain(Path(sys.argv[1]), "tests"), 0
while True:
    record = chain.append({"number": number, "filler": "x" * (number * 37 % 3000)})
    sys.stdout.write(record.digest + "\\n")
    sys.stdout.flush()
    number += 1
"""


def test_a_kill_at_any_moment_loses_nothing_that_was_acknowledged(tmp_path):
    random = np.random.default_rng(7)
    path = tmp_path / "chain.jsonl"
    acknowledged: list[str] = []
    for _ in range(6):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parents[2],
        )
        assert writer.stdout is not None
        acknowledged.append(writer.stdout.readline().strip())
        time.sleep(random.uniform(0, 0.15))
        writer.send_signal(signal.SIGKILL)
        # Lines that the kill cut short were never read by anybody.
        acknowledged += [line.strip() for line in writer.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
        writer.wait(timeout=30)
        writer.stdout.close()
        kept: list[str] = []
        found = verify(path, "tests", lambda record, kept=kept: kept.append(record.digest))
        assert found.intact
        assert [digest for digest in kept if digest in set(acknowledged)] == acknowledged
        assert len(kept) <= len(acknowledged) + 6
    assert len(acknowledged) > 50
