"""Reading a recording where it is looked at, against real servers with and without ranges."""

from __future__ import annotations

import hashlib
import os
import random
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from open_files import open_files, opened_since
from scripted_http import Ask, Line, Route, ScriptedServer, in_turn, reply, reply_json, reset
from vault_ml.demo.vault_server import EmbeddedVault
from vault_ml.errors import (
    RecordingIncomplete,
    RecordingNotFound,
    RecordingTooLarge,
    SignedUrlExpired,
    UnavailableError,
    VaultUnavailable,
)
from vault_ml.vault.client import Opened, RangedRecording, Recording, VaultClient, VaultOptions
from vault_ml.vault.ranged import BLOCK_BYTES, HEAD_BYTES, Part

ACCESS, SECRET = "canary-access-key", "canary-secret-key"
KEY = "youruser/1630567591_6-967003_highway4_200-200-400-400_24_769.mp4"
BYTES = random.Random(3).randbytes(1_000_003)
QUICK = VaultOptions(
    api_prefix="", connect_timeout_s=1, read_timeout_s=1, call_timeout_s=3, transfer_timeout_s=3
)


# --- the recording itself ------------------------------------------------------------------------


class Shelf:
    """A range source over bytes, which notes what it was asked for."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.asked: list[tuple[int, int]] = []

    def part(self, first: int, size: int, guard: Mapping[str, bytes]) -> Part:
        self.asked.append((first, size))
        return Part(self.content[first : first + size], len(self.content), '"1"', "")

    def renew(self) -> bool:
        raise AssertionError("nothing expires here")


def ranged(content: bytes, **changed: int) -> tuple[RangedRecording, Shelf]:
    shelf = Shelf(content)
    head = Part(content[:HEAD_BYTES], len(content), '"1"', "")
    limit = changed.get("max_bytes", 10**9)
    return RangedRecording(shelf, head, who="The shelf", max_bytes=limit, work_dir=None), shelf


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 24 * BLOCK_BYTES),
    st.lists(
        st.tuples(st.integers(0, 25 * BLOCK_BYTES), st.integers(0, 3 * BLOCK_BYTES)), max_size=8
    ),
)  # fmt: skip
def test_reads_what_is_there_and_fetches_nothing_twice(
    size: int, reads: list[tuple[int, int]]
) -> None:
    content = random.Random(size).randbytes(size)
    recording, shelf = ranged(content)
    with recording:
        for offset, length in reads:
            assert recording.read_at(offset, length) == content[offset : offset + length]
        assert recording.fetched_bytes <= size + 4 * BLOCK_BYTES * len(reads)
        assert recording.requests == len(shelf.asked) + 1
        asked_blocks = [n // BLOCK_BYTES for n, _ in shelf.asked]
        assert len(set(asked_blocks)) == len(asked_blocks)
        seen = b"".join(content[first : last + 1] for first, last in recording.ranges)
        assert recording.sha256 == hashlib.sha256(seen).hexdigest()
        assert recording.read_at(0, size) == content
        assert recording.ranges == ((0, size - 1),)
        assert recording.sha256 == hashlib.sha256(content).hexdigest()


def test_jumping_about_fetches_no_more_than_is_read() -> None:
    recording, shelf = ranged(bytes(400 * BLOCK_BYTES))
    with recording:
        for block in (300, 100, 200, 50):
            recording.read_at(block * BLOCK_BYTES + 7, 100)
    assert [size for _, size in shelf.asked] == [BLOCK_BYTES] * 4


def test_a_small_hole_is_fetched_with_what_is_around_it() -> None:
    recording, shelf = ranged(bytes(40 * BLOCK_BYTES))
    with recording:
        recording.read_at(21 * BLOCK_BYTES, 1)
        recording.read_at(20 * BLOCK_BYTES, 3 * BLOCK_BYTES)
    assert shelf.asked[1:] == [(20 * BLOCK_BYTES, 3 * BLOCK_BYTES)]


def test_a_recording_above_the_limit_is_not_even_begun() -> None:
    with pytest.raises(RecordingTooLarge, match="RECORDING_MAX_BYTES"):
        ranged(bytes(100_000), max_bytes=99_999)


def test_a_closed_recording_is_not_read() -> None:
    before = open_files()
    recording, _ = ranged(bytes(10))
    assert opened_since(before)
    recording.close()
    recording.close()
    assert opened_since(before) == []
    with pytest.raises(ValueError, match="cannot read"):
        recording.read_at(0, 1)


# --- against servers -----------------------------------------------------------------------------


def ranges_of(content: bytes, **headers: str) -> Route:
    """A storage that knows ranges."""

    def route(ask: Ask, line: Line) -> None:
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", ask.headers.get("range", ""))
        if not found:
            reply(200, content, **headers)(ask, line)
            return
        first, last = int(found[1]), min(int(found[2]), len(content) - 1)
        where = f"bytes {first}-{last}/{len(content)}"
        reply(206, content[first : last + 1], Content_Range=where, **headers)(ask, line)

    return route


@contextmanager
def vault_with(route: Route) -> Iterator[ScriptedServer]:
    with ScriptedServer({"POST /ping": reply_json(200, "pong"), "GET /x": route}) as vault:
        vault.routes["GET /storage"] = reply_json(200, f"{vault.url}/x?X-Signature=canary")
        yield vault


@contextmanager
def opened(
    vault: ScriptedServer | EmbeddedVault, options: VaultOptions = QUICK, *, from_bytes: int = 0
) -> Iterator[Opened]:
    with (
        VaultClient(vault.url, ACCESS, SECRET, options) as client,
        client.open(KEY, "local", ranges_from_bytes=from_bytes) as recording,
    ):
        yield recording


@contextmanager
def opened_by_ranges(
    vault: ScriptedServer | EmbeddedVault, options: VaultOptions = QUICK
) -> Iterator[RangedRecording]:
    with opened(vault, options) as recording:
        assert isinstance(recording, RangedRecording)
        yield recording


def test_a_few_bytes_of_a_large_recording_cost_a_few_bytes(tmp_path: Path) -> None:
    with EmbeddedVault(tmp_path, ACCESS, SECRET) as vault:
        vault.put(KEY, BYTES)
        with opened_by_ranges(vault, VaultOptions()) as recording:
            assert recording.source.read_at(500_000, 1000) == BYTES[500_000:501_000]
            assert recording.read_at(len(BYTES) - 10, 100) == BYTES[-10:]
            assert recording.read_at(len(BYTES), 100) == b""
            assert recording.size_bytes == len(BYTES)
            assert recording.fetched_bytes < 0.05 * len(BYTES)
            assert recording.route == "ranges"
        signed = [r for r in vault.requests if r.path.endswith("/signed")]
        assert len(signed) == 3
        for request in signed:
            assert not [name for name in request.header_names if "kerberos" in name]


def test_a_small_recording_comes_whole() -> None:
    with vault_with(ranges_of(BYTES)) as vault, opened(vault, from_bytes=2**20) as recording:
        assert recording.fetched_bytes == recording.size_bytes == len(BYTES)
        assert recording.sha256 == hashlib.sha256(BYTES).hexdigest()
        assert vault.paths().count("/x") == 2


@pytest.mark.parametrize(
    "route",
    [
        pytest.param(reply(200, BYTES), id="200"),
        pytest.param(
            in_turn(reply(206, BYTES[:HEAD_BYTES]), reply(200, BYTES)), id="no Content-Range"
        ),
        pytest.param(
            in_turn(
                reply(206, BYTES[5 : HEAD_BYTES + 5],
                      Content_Range=f"bytes 5-{HEAD_BYTES + 4}/{len(BYTES)}"),
                reply(200, BYTES),
            ),
            id="another range",
        ),
        pytest.param(
            in_turn(
                reply(206, BYTES[:HEAD_BYTES], Content_Range=f"bytes 0-{HEAD_BYTES - 1}/*"),
                reply(200, BYTES),
            ),
            id="length unknown",
        ),
        pytest.param(
            in_turn(
                reply(206, BYTES, Content_Range=f"bytes 0-{HEAD_BYTES - 1}/{len(BYTES)}"),
                reply(200, BYTES),
            ),
            id="more than said",
        ),
        pytest.param(
            in_turn(
                reply(206, BYTES[:HEAD_BYTES], Content_Encoding="gzip",
                      Content_Range=f"bytes 0-{HEAD_BYTES - 1}/{len(BYTES)}"),
                reply(200, BYTES),
            ),
            id="compressed",
        ),
    ],
)  # fmt: skip
def test_a_server_without_usable_ranges_gives_the_whole_recording(route: Route) -> None:
    with vault_with(route) as vault, opened(vault) as recording:
        assert isinstance(recording, Recording)
        assert os.pread(recording.source, len(BYTES) + 1, 0) == BYTES
        assert recording.ranges == ((0, len(BYTES) - 1),)


def test_a_vault_without_signed_urls_gives_the_whole_recording(tmp_path: Path) -> None:
    with EmbeddedVault(tmp_path, ACCESS, SECRET, signs_urls=False) as vault:
        vault.put(KEY, BYTES)
        with opened(vault, VaultOptions()) as recording:
            assert recording.route == "blob"


def test_a_url_that_expires_in_the_middle_is_renewed(tmp_path: Path) -> None:
    good = ranges_of(BYTES, ETag='"1"')
    with vault_with(in_turn(good, reply(403), good, reply(400), good)) as vault:
        with opened_by_ranges(vault) as recording:
            for offset in (300_000, 700_000):
                assert recording.read_at(offset, 10) == BYTES[offset : offset + 10]
        assert vault.paths().count("/storage") == 3


def test_a_url_that_stays_refused_in_the_middle_has_expired() -> None:
    with (
        vault_with(in_turn(ranges_of(BYTES), reply(403))) as vault,
        opened_by_ranges(vault) as recording,
        pytest.raises(SignedUrlExpired, match="in the middle") as caught,
    ):
        recording.read_at(300_000, 10)
    assert vault.paths().count("/x") == 5
    assert "canary" not in str(caught.value)


def test_a_vault_that_signs_no_more_in_the_middle_leaves_no_way() -> None:
    with (
        vault_with(in_turn(ranges_of(BYTES), reply(403))) as vault,
        opened_by_ranges(vault) as recording,
    ):
        vault.routes["GET /storage"] = reply_json(200, "")
        with pytest.raises(SignedUrlExpired):
            recording.read_at(300_000, 10)


@pytest.mark.parametrize(
    "later",
    [
        pytest.param(ranges_of(BYTES + b"more", ETag='"1"'), id="another length"),
        pytest.param(ranges_of(BYTES, ETag='"2"'), id="another ETag"),
        pytest.param(reply(200, BYTES), id="If-Range does not hold"),
        pytest.param(reply(412), id="precondition failed"),
        pytest.param(reply(416), id="shorter now"),
    ],
)
def test_a_recording_that_is_replaced_while_it_is_read_is_read_again_later(later: Route) -> None:
    with (
        vault_with(in_turn(ranges_of(BYTES, ETag='"1"'), later)) as vault,
        opened_by_ranges(vault) as recording,
        pytest.raises(RecordingIncomplete, match="another recording there now"),
    ):
        recording.read_at(900_000, 10)


@pytest.mark.parametrize(
    ("headers", "guard"),
    [
        ({"ETag": '"1"'}, '"1"'),
        ({"ETag": 'W/"1"'}, None),
        ({"Last_Modified": "Thu, 02 Sep 2021 07:26:31 GMT"}, "Thu, 02 Sep 2021 07:26:31 GMT"),
        ({"ETag": '"1"', "Last_Modified": "Thu, 02 Sep 2021 07:26:31 GMT"}, '"1"'),
        ({}, None),
    ],
)
def test_the_server_is_told_which_version_is_meant(
    headers: dict[str, str], guard: str | None
) -> None:
    with vault_with(ranges_of(BYTES, **headers)) as vault:
        with opened_by_ranges(vault) as recording:
            assert recording.read_at(900_000, 10) == BYTES[900_000:900_010]
        assert vault.asks[-1].headers.get("if-range") == guard


@pytest.mark.parametrize(
    ("later", "error"),
    [
        pytest.param(reply(503), VaultUnavailable, id="503"),
        pytest.param(reply(404), RecordingNotFound, id="404"),
        pytest.param(reply(204), VaultUnavailable, id="204"),
        pytest.param(reset, VaultUnavailable, id="reset"),
        pytest.param(reply(302, Location="http://169.254.169.254/"), VaultUnavailable, id="302"),
        pytest.param(
            reply(206, b"abc", Content_Range=f"bytes 897024-901119/{len(BYTES)}"),
            RecordingIncomplete,
            id="too few bytes",
        ),
    ],
)
def test_what_goes_wrong_in_the_middle_is_never_taken_for_bytes(
    later: Route, error: type[Exception]
) -> None:
    with (
        vault_with(in_turn(ranges_of(BYTES), later)) as vault,
        opened_by_ranges(vault) as recording,
        pytest.raises(error),
    ):
        recording.read_at(900_000, 10)


def test_a_storage_that_goes_away_in_the_middle_is_an_outage() -> None:
    with vault_with(ranges_of(BYTES)) as vault, opened_by_ranges(vault) as recording:
        vault.stop_listening()
        for _ in range(2):
            with pytest.raises(VaultUnavailable):
                recording.read_at(900_000, 10)


def test_an_empty_recording_is_not_complete_yet(tmp_path: Path) -> None:
    with (
        vault_with(reply(416, Content_Range="bytes */0")) as vault,
        pytest.raises(RecordingIncomplete, match="empty so far"),
        opened(vault),
    ):
        pass
    with EmbeddedVault(tmp_path, ACCESS, SECRET) as embedded:
        embedded.put(KEY, b"")
        with pytest.raises(RecordingIncomplete, match="empty so far"), opened(embedded):
            pass


def test_ranges_follow_a_redirect_once() -> None:
    with ScriptedServer({"GET /far": ranges_of(BYTES)}) as storage:
        moved = reply(307, Location=f"{storage.url}/far?s=1")
        with vault_with(moved) as vault:
            with opened_by_ranges(vault) as recording:
                assert recording.read_at(900_000, 10) == BYTES[900_000:900_010]
            assert vault.paths().count("/x") == 1


def test_a_slow_storage_meets_the_time_limit_over_all_parts() -> None:
    good = ranges_of(BYTES)

    def slow(ask: Ask, line: Line) -> None:
        line.wait(0.4)
        good(ask, line)

    options = replace(QUICK, transfer_timeout_s=1.5)
    with (
        vault_with(slow) as vault,
        opened_by_ranges(vault, options) as recording,
        pytest.raises(RecordingIncomplete, match=r"within 1\.5 s"),
    ):
        any(recording.read_at(block * BLOCK_BYTES, 1) == b"" for block in range(240, 20, -20))


def test_connections_are_used_again(tmp_path: Path) -> None:
    made: list[Callable[[], None]] = []
    accept = threading.Lock()

    def names(host: str, port: int) -> list[str]:  # asked once per connection
        with accept:
            made.append(lambda: None)
        return [host]

    with EmbeddedVault(tmp_path, ACCESS, SECRET) as vault:
        vault.put(KEY, BYTES)
        with opened_by_ranges(vault, VaultOptions(resolver=names)) as recording:
            for block in range(240, 20, -20):
                recording.read_at(block * BLOCK_BYTES, 1)
            assert recording.requests > 10
    assert len(made) == 1


def test_a_full_disk_in_the_middle_pauses(tmp_path: Path) -> None:
    import resource

    options = replace(QUICK, work_dir=tmp_path)
    with vault_with(ranges_of(BYTES)) as vault, opened_by_ranges(vault, options) as recording:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        try:
            with pytest.raises(UnavailableError, match="no room"):
                recording.read_at(900_000, 10)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert recording.read_at(900_000, 10) == BYTES[900_000:900_010]
        assert list(tmp_path.iterdir()) == []
