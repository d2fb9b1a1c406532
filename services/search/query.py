"""What a person types into a search box, as an FTS5 expression. There is no text that FTS5 would refuse afterwards."""

from __future__ import annotations

import re

MAX_LENGTH = 500
MAX_TERMS = 16

_TERM = re.compile(
    r"""
    (?P<not>-)?                      # a minus before a term excludes it
    (?: "(?P<phrase>[^"]*)(?:"|$)    # words between quotes are a phrase, also when the last quote is missing
      | (?P<word>[^\s"]+) )
    """,
    re.VERBOSE,
)


def owner_token(user_id: str) -> str:
    """A user's id as one token of the index, whatever characters it has: hits of others are never even looked at."""
    return f"u{user_id.encode('utf-8', 'surrogatepass').hex()}"


def match_expression(text: str, user_id: str) -> str | None:
    """FTS5 expression for `text` within what the user owns; None when there is nothing in it to look for.

    All words must occur; `"a b"` is a phrase, `wor*` a beginning, `-word` excludes. Everything is quoted, so FTS5's own
    operators are just words. Beyond 500 characters or 16 terms the rest is ignored.
    """
    wanted: list[str] = []
    unwanted: list[str] = []
    for found in _TERM.finditer(_printable(text[:MAX_LENGTH])):
        if len(wanted) + len(unwanted) == MAX_TERMS:
            break
        raw = found["phrase"] if found["phrase"] is not None else found["word"]
        if not any(character.isalnum() for character in raw):
            continue  # only punctuation: the index holds none of it
        term = '"' + raw.rstrip("*") + '"'
        if found["word"] is not None and raw.endswith("*"):
            term += "*"
        (unwanted if found["not"] else wanted).append(term)
    if not wanted:
        return None
    expression = f'owner : "{owner_token(user_id)}" AND {{title text}} : ({" AND ".join(wanted)})'
    return "".join([expression, *(f" NOT {{title text}} : ({term})" for term in unwanted)])


def _printable(text: str) -> str:
    """Without what SQLite cannot take in an expression: NUL ends it, lone surrogates are no text."""
    return "".join(" " if ord(c) < 32 or 0xD800 <= ord(c) <= 0xDFFF else c for c in text)
