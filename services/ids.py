"""Ids that several processes can make at once without meeting."""

from __future__ import annotations

import os
import time


def new_id() -> str:
    """UUID version 7 (RFC 9562): 48 bits of milliseconds, then 74 random bits: ids sort by time and never collide."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76  # version
    value = value & ~(0x3 << 62) | 0x2 << 62  # variant
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
