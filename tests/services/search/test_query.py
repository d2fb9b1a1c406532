"""What people type, as expressions that FTS5 always takes."""

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.search.query import match_expression


@pytest.fixture(scope="module")
def index() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE VIRTUAL TABLE words USING fts5 (owner, title, text)")
    return connection


NASTY = st.text(st.sampled_from("\"*-()^:+{}[]'\\ \n\0\ud800aANDORNOTéß中ﬀ,.;|&!"), max_size=60) | st.text(max_size=60)


@given(NASTY)
def test_no_text_makes_an_expression_that_the_index_refuses(index: sqlite3.Connection, text: str) -> None:
    expression = match_expression(text, "ana")
    if expression is not None:
        index.execute("SELECT * FROM words WHERE words MATCH ?", (expression,)).fetchall()


@given(NASTY, NASTY)
def test_no_text_reaches_beyond_its_owner(index: sqlite3.Connection, text: str, user_id: str) -> None:
    expression = match_expression(text, user_id)
    if expression is not None:
        assert expression.startswith('owner : "u')
        assert " OR " not in expression.replace('" OR "', "")


@pytest.mark.parametrize("text", ["", "   ", "***", '"', '""', "- -", "-word", "!?.", "\0"])
def test_text_with_nothing_to_look_for_finds_nothing(text: str) -> None:
    assert match_expression(text, "ana") is None


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("red boat", '{title text} : ("red" AND "boat")'),
        ('"red boat" sail', '{title text} : ("red boat" AND "sail")'),
        ('"red boat', '{title text} : ("red boat")'),
        ("sail*", '{title text} : ("sail"*)'),
        ("boat -red", '{title text} : ("boat") NOT {title text} : ("red")'),
        ("boat OR red", '{title text} : ("boat" AND "OR" AND "red")'),
    ],
)
def test_words_phrases_beginnings_and_exclusions(text: str, terms: str) -> None:
    expression = match_expression(text, "ana")
    assert expression is not None
    assert expression.partition(" AND ")[2] == terms


def test_beyond_sixteen_terms_the_rest_is_ignored() -> None:
    expression = match_expression(" ".join(f"w{n}" for n in range(100)), "ana")
    assert expression is not None
    assert '"w15"' in expression
    assert '"w16"' not in expression
