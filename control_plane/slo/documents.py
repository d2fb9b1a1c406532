"""YAML with its places: every value knows its line and property path, and numbers keep the text they are written in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import yaml

MOST_VALUES = 50_000  # per file; an alias counts at each use, so that a short file cannot unfold into a huge one
Tag = Literal["text", "number", "truth", "nothing", "other"]


class MalformedYaml(ValueError):
    """The text is not YAML that can be used; `line` is counted from 1."""

    def __init__(self, line: int, message: str) -> None:
        self.line = line
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Node:
    """One value of a document. Exactly one of `text`, `fields`, `items` is meaningful, as `shape` says."""

    line: int
    path: str
    shape: Literal["scalar", "mapping", "list"]
    text: str = ""  # a scalar as written, unquoted
    tag: Tag = "other"
    fields: Mapping[str, Node] = field(default_factory=dict)
    items: tuple[Node, ...] = ()
    repeated: tuple[Node, ...] = ()  # values whose key came before in the same mapping; YAML would drop them in silence


_TAGS: dict[str, Tag] = {
    "tag:yaml.org,2002:str": "text",
    "tag:yaml.org,2002:int": "number",
    "tag:yaml.org,2002:float": "number",
    "tag:yaml.org,2002:bool": "truth",
    "tag:yaml.org,2002:null": "nothing",
}


def documents(text: str) -> Iterator[Node]:
    """The documents of one file, empty ones left out. Raises MalformedYaml."""
    left = MOST_VALUES

    def convert(raw: yaml.Node, path: str, depth: int) -> Node:
        nonlocal left
        left -= 1
        line = raw.start_mark.line + 1
        if left < 0 or depth > 40:
            raise MalformedYaml(line, "holds too many or too deeply nested values for an SLO file: split it")
        if isinstance(raw, yaml.ScalarNode):
            return Node(line, path, "scalar", text=raw.value, tag=_TAGS.get(raw.tag, "other"))
        if isinstance(raw, yaml.SequenceNode):
            items = tuple(convert(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(raw.value))
            return Node(line, path, "list", items=items)
        fields: dict[str, Node] = {}
        repeated = []
        for key, value in raw.value:
            if not isinstance(key, yaml.ScalarNode):
                raise MalformedYaml(key.start_mark.line + 1, "has a key that is not plain text")
            node = convert(value, f"{path}.{key.value}" if path else key.value, depth + 1)
            if key.value in fields:
                repeated.append(node)
            fields[key.value] = node
        return Node(line, path, "mapping", fields=fields, repeated=tuple(repeated))

    try:
        for raw in yaml.compose_all(text, Loader=yaml.SafeLoader):
            if raw is not None:
                yield convert(raw, "", 0)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise MalformedYaml(mark.line + 1 if mark else 1, f"is not YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise MalformedYaml(1, f"is not YAML: {error}") from error
