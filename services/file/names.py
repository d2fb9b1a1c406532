"""Names of uploaded files, made harmless. They are shown and offered for download; on disk an id is used instead."""

from __future__ import annotations

import re
import unicodedata

MAX_BYTES = 200  # of UTF-8: fits into every file system of those who download
FALLBACK = "file"

_SEPARATORS = re.compile(r"[/\\]+")
_FORBIDDEN = re.compile(r'[<>:"|?*]+')  # what Windows refuses in a name
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\.|$)")  # devices there
_INVISIBLE = {
    "Cc",
    "Cf",
    "Cs",
    "Co",
    "Cn",
    "Zl",
    "Zp",
}  # control, bidi overrides, surrogates, private, unassigned, line breaks


def safe_name(raw: str) -> str:
    """The last part of `raw` as a name that is never empty, hidden, a path, a device, or other than what it shows.

    NFC, so that one name has one form. A name that is safe comes back as it is.
    """
    name = _SEPARATORS.split(unicodedata.normalize("NFC", raw))[-1]
    name = "".join(" " if c.isspace() else c for c in name if c.isspace() or unicodedata.category(c) not in _INVISIBLE)
    name = _FORBIDDEN.sub("_", name)
    name = " ".join(name.split()).strip(". ")
    if _RESERVED.match(name):
        name = f"_{name}"
    return _cut(unicodedata.normalize("NFC", name)) or FALLBACK


def _cut(name: str) -> str:
    """At most MAX_BYTES, taken from the stem as long as the ending is a short one."""
    if len(name.encode()) <= MAX_BYTES:
        return name
    stem, dot, ending = name.rpartition(".")
    if not dot or len(ending.encode()) > 20:
        stem, dot, ending = name, "", ""
    room = MAX_BYTES - len((dot + ending).encode())
    return stem.encode()[:room].decode(errors="ignore").rstrip(". ") + dot + ending
