"""Finds and reads the files that people edit, as text: the only place that knows they are files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from control_plane.errors import InvalidDefinition

ENDINGS = (".yaml", ".yml")
LARGEST_BYTES = 1 << 20


def read_slo_files(paths: Iterable[Path]) -> dict[str, str]:
    """Text by file name, of files and of all YAML files in folders (not `policy.yaml`, which is no SLO file)."""
    files: dict[str, str] = {}
    for path in paths:
        if not path.exists():
            raise InvalidDefinition(f"{path} does not exist. Give SLO files or folders, e.g. slos/.")
        found = sorted(p for p in path.rglob("*") if p.suffix in ENDINGS) if path.is_dir() else [path]
        for file in found:
            if path.is_dir() and file.name == "policy.yaml":
                continue
            files[str(file)] = read_text(file)
    if not files:
        raise InvalidDefinition("No SLO file was found there. They end in .yaml or .yml.")
    return files


def read_text(file: Path) -> str:
    """The file's text; InvalidDefinition says why it cannot be had."""
    try:
        if file.stat().st_size > LARGEST_BYTES:
            raise InvalidDefinition(f"{file} is larger than 1 MiB: that is no definition file.")
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InvalidDefinition(f"{file}: byte {error.start} is not UTF-8. Save the file as UTF-8.") from error
    except OSError as error:
        raise InvalidDefinition(f"{file} cannot be read: {error.strerror}.") from error
