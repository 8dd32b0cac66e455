"""`vault-ml verify`: is this the file that an Agent signed?"""

from __future__ import annotations

import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from vault_ml.errors import ConfigError

_PIECE_BYTES = 1 << 20


def verify(
    path: Annotated[Path, typer.Argument(help="A recording.", metavar="FILE")],
    key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The Agent's public key, or certificate, in PEM form."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object on standard output.")
    ] = False,
) -> None:
    """Check the signature that an Agent puts into its recordings, and print the sha256.

    The signature covers when the recording was made, its length, the Agent's name, and the number
    and sizes of its fragments, but not the pictures themselves. An encrypted recording is
    decrypted with RECORDING_KEYS. Ends with 0 when the signature is good (without --key: when
    the file could be read), else with 1.
    """
    from vault_ml.settings import keys_of_recordings
    from vault_ml.vault.encrypted import FileBytes, RecordingKeys
    from vault_ml.video.signature import COVERAGE, load_key, read_signed_parts

    public_key = None if key is None else load_key(key)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"{path} cannot be opened: {error.strerror}") from error
    try:
        digest = _sha256(fd)
        keys = RecordingKeys(keys_of_recordings(os.environ))
        unlocked = keys.unlocked(fd)
        content = FileBytes(fd) if isinstance(unlocked, int) else unlocked
        parts = read_signed_parts(content.read_at, content.size_bytes)
    finally:
        os.close(fd)
    if parts.signature is None:
        state = "missing"
    elif public_key is None:
        state = "not checked"
    else:
        state = "good" if parts.is_signed_by(public_key) else "bad"
    document = {
        "file": str(path),
        "sha256": digest,
        "size_bytes": path.stat().st_size,
        "is_encrypted": not isinstance(unlocked, int),
        "signature": state,
        "written_by": parts.agent,
        "created": _iso(parts.created_unix) if parts.created else "unknown",
        "fragments": len(parts.segments),
        "covers": COVERAGE,
    }
    print(json.dumps(document) if as_json else _as_text(document))
    if public_key is not None and state != "good":
        raise typer.Exit(1)


_SENTENCES = {
    "good": "good: an Agent with this key signed a recording of this structure",
    "bad": "BAD: the file was changed, or another key signed it",
    "missing": "missing: the Agent did not sign it (AGENT_SIGNING), or it was packed anew",
    "not checked": "there is one; give --key to check it",
}


def _as_text(document: dict[str, Any]) -> str:
    lines = [
        document["file"],
        f"  sha256     {document['sha256']}",
        f"  signature  {_SENTENCES[document['signature']]}",
        f"  written by {document['written_by']}",
        f"  created    {document['created']}",
        f"  fragments  {document['fragments']}",
    ]
    if document["signature"] != "missing":
        lines.append(document["covers"])
    return "\n".join(lines)


def _iso(unix_s: int) -> str:
    try:
        return datetime.fromtimestamp(unix_s, UTC).isoformat()
    except (OverflowError, ValueError, OSError):
        return "unknown"


def _sha256(fd: int) -> str:
    digest, offset = hashlib.sha256(), 0
    while piece := os.pread(fd, _PIECE_BYTES, offset):
        digest.update(piece)
        offset += len(piece)
    return digest.hexdigest()
