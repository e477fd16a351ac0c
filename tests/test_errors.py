import pytest

from rfjax.errors import LONGEST_NAME, one_line, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a red circle\n\tand ± caf\u00e9 \u732b \U0001f600", None),
        ("\x1b[31mred\x1b[0m \x1b[2J\x1b[10;20Hhere", "red here"),
        ("\x1b]0;a title\x07b \x1b]8;;http://x\x1b\\c", "b c"),
        ("\x9b1mx\x85\x07\x00\x08y\r\n", "xy\n"),
        ("half \ud83d an emoji \udcff", "half \ufffd an emoji \ufffd"),
        ("\x1b", ""),
    ],
)
def test_what_moves_a_cursor_or_has_no_encoding_is_taken_out(text, shown):
    assert printable(text) == (text if shown is None else shown)
    printable(text).encode()


def test_a_name_is_shown_on_one_line_of_limited_length():
    assert one_line("a\x1b[2J\n name") == "a name"
    assert one_line("x" * 500) == "x" * (LONGEST_NAME - 3) + "..."
