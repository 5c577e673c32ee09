"""What comes from outside (names, paths, errors of others) as text that a terminal shows and does not obey."""

from rich.markup import escape

from prunit.errors import harmless


def safe(text: str) -> str:
    """The text for a table or a line with markup: brackets stay as they are, control characters become visible."""
    return escape(harmless(text))
