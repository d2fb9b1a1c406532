"""SLO files from disk."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from control_plane.errors import InvalidDefinition

NOT_SLOS = frozenset({"policy.yaml"})
"""Files of the SLO folder that hold something else."""
LARGEST_BYTES = 1024 * 1024


def read_texts(paths: Iterable[Path]) -> dict[str, str]:
    """Text by file name, of files and of the `.yaml` and `.yml` files right inside folders.

    Raises InvalidDefinition for a path that is missing, unreadable, empty of SLO files or too large.
    """
    texts: dict[str, str] = {}
    for path in paths:
        if path.is_dir():
            found = sorted(p for p in path.iterdir() if p.suffix in (".yaml", ".yml") and p.name not in NOT_SLOS)
            if not found:
                raise InvalidDefinition(f"{path}: holds no .yaml file: give a folder with OpenSLO files")
        else:
            found = [path]
        for file in found:
            texts[str(file)] = _text(file)
    return texts


def _text(file: Path) -> str:
    try:
        if file.stat().st_size > LARGEST_BYTES:
            raise InvalidDefinition(f"{file}: is larger than {LARGEST_BYTES // 1024} KiB: split it")
        return file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InvalidDefinition(f"{file}: does not exist") from error
    except UnicodeDecodeError as error:
        raise InvalidDefinition(f"{file}: is not UTF-8 text ({error})") from error
    except OSError as error:
        raise InvalidDefinition(f"{file}: cannot be read ({error.strerror})") from error
