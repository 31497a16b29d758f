"""Texts that a spreadsheet would take for formulas. Knows nothing of tables, and imports no pandas."""

import re

_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")


def guard(text: str) -> str:
    """The text with an apostrophe before it if a spreadsheet would take it for a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def unguard(text: str) -> str:
    """The text that `guard` was given."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text
