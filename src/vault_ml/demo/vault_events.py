"""The event that a Vault puts on the queue after an upload, in the form of 2021.

Field for field, and in the order, of the messages that the first vault-ml documented.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from vault_ml.file_name import parse_file_name
from vault_ml.vault import protocol

_STAGES = ("monitor", "sequence", "analysis", "throttler", "notification")


def upload_event(
    key: str, *, size_bytes: int, provider: str, stored_at: int, headers: Mapping[str, str]
) -> bytes:
    """The event about a stored recording.

    Args:
        key: the recording.
        size_bytes: its length.
        provider: the storage it is in; the event calls it `source`.
        stored_at: Unix seconds.
        headers: the `X-Kerberos-Storage-*` headers that it was uploaded with.

    Returns:
        A JSON object, UTF-8. Metadata are strings, numbers included, as the Vault sends them.
    """
    name = parse_file_name(key)
    metadata = {
        "productid": headers.get(protocol.DEVICE, ""),
        "event-timestamp": str(name.timestamp if name else stored_at),
        "publickey": headers.get(protocol.CLOUD_KEY, ""),
        "event-instancename": name.device if name else headers.get(protocol.DEVICE, ""),
        "capture": headers.get(protocol.CAPTURE, ""),
        "event-microseconds": str(round(name.sub_second_s * 1e6) if name else 0),
        "uploadtime": str(stored_at),
        "event-regioncoordinates": name.region if name else "",
        "event-token": str(name.token if name else 0),
        "event-numberofchanges": str(name.changes if name else 0),
    }
    newer = {"duration": protocol.DURATION, "fps": protocol.FPS}
    metadata |= {field: headers[header] for field, header in newer.items() if headers.get(header)}
    event = {
        "provider": "kstorage",
        "source": provider,
        "request": "persist",
        "payload": {
            "is_fragmented": False,
            "metadata": metadata,
            "key": key,
            "bytes_range_on_time": None,
            "fileSize": size_bytes,
            "bytes_ranges": "",
        },
        "events": list(_STAGES),
        "date": stored_at,
    }
    return json.dumps(event, ensure_ascii=False).encode()
