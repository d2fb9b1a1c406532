"""Names of files: harmless whatever was sent."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.file.names import MAX_BYTES, safe_name


@pytest.mark.parametrize(
    ("raw", "safe"),
    [
        ("report.pdf", "report.pdf"),
        ("../../etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("/etc/shadow", "shadow"),
        ("C:\\temp\\a.txt", "a.txt"),
        ("..", "file"),
        (".", "file"),
        ("", "file"),
        ("///", "file"),
        (".bashrc", "bashrc"),
        ("a\x00b.txt", "ab.txt"),
        ("line\r\nbreak.txt", "line break.txt"),
        ("invoice\u202efdp.exe", "invoicefdp.exe"),  # right-to-left override: would read invoiceexe.pdf
        ("Cafe\u0301.txt", "Caf\u00e9.txt"),
        ("\ud800.txt", "txt"),
        ("CON", "_CON"),
        ("aux.txt", "_aux.txt"),
        ('a<b>:"|?*.txt', "a_b_.txt"),
        ("  spaced   out .txt ", "spaced out .txt"),
        ("raport-țară.txt", "raport-țară.txt"),
    ],
)
def test_names_are_kept_where_safe_and_mended_where_not(raw: str, safe: str) -> None:
    assert safe_name(raw) == safe


def test_a_long_name_keeps_its_ending() -> None:
    name = safe_name("ă" * 500 + ".tar")
    assert name.endswith(".tar")
    assert len(name.encode()) <= MAX_BYTES


@given(st.text(max_size=300) | st.text(st.sampled_from("./\\ \u202e\u0301a:\0\n<\ud800"), max_size=30))
def test_every_name_is_one_harmless_part_and_stable(raw: str) -> None:
    name = safe_name(raw)
    assert name
    assert name not in (".", "..")
    assert not set(name) & set('/\\<>:"|?*')
    assert not name.startswith((".", " "))
    assert not name.endswith((".", " "))
    assert all(unicodedata.category(c)[0] != "C" for c in name)
    assert len(name.encode()) <= MAX_BYTES
    assert unicodedata.is_normalized("NFC", name)
    assert safe_name(name) == name
