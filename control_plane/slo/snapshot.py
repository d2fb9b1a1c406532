"""Bytes that hold the engine's memory across a restart: plain data and arrays, nothing that could run."""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

VERSION = 1
_MAGIC = b"backstay-slo-1\n"


class UnreadableSnapshot(ValueError):
    """The bytes are damaged or of another version: start from the source's history instead."""


def pack(header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The header (JSON values) and the arrays, compressed."""
    buffer = io.BytesIO()
    np.savez(buffer, **dict(arrays))  # type: ignore[arg-type]
    text = json.dumps({"version": VERSION, **header}).encode()
    return _MAGIC + zlib.compress(len(text).to_bytes(8, "big") + text + buffer.getvalue(), 1)


def unpack(data: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """What `pack` took. Raises UnreadableSnapshot."""
    if not data.startswith(_MAGIC):
        raise UnreadableSnapshot("not a snapshot of the SLO engine, or one of another version")
    try:
        body = zlib.decompress(data[len(_MAGIC) :])
        length = int.from_bytes(body[:8], "big")
        header = json.loads(body[8 : 8 + length])
        with np.load(io.BytesIO(body[8 + length :]), allow_pickle=False) as held:
            arrays = {name: held[name] for name in held.files}
    except (zlib.error, ValueError, OSError, KeyError, EOFError) as error:
        raise UnreadableSnapshot(f"the snapshot is damaged: {error}") from error
    return header, arrays
