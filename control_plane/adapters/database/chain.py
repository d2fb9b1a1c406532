"""Hash chains: each record's hash covers its content and the hash before, so that a changed past shows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TypeVar

Key = TypeVar("Key")

BEGINNING = "0" * 64
"""The hash before the first record."""


def link(before: str, content: str) -> str:
    """Hash of a record: SHA-256 over the hash before it and its canonical content."""
    return hashlib.sha256(f"{before}\n{content}".encode()).hexdigest()


def first_broken(records: Iterable[tuple[Key, str, str]]) -> Key | None:
    """Key of the first (key, content, hash) that does not follow from the one before; None when all do.

    Records cut off at the end leave a whole chain: compare the newest hash with one kept elsewhere to notice that.
    """
    before = BEGINNING
    for key, content, stored in records:
        if link(before, content) != stored:
            return key
        before = stored
    return None
