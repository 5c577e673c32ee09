"""What comes from outside (names, paths, errors of others) as text that a terminal shows and does not obey."""

from prunit.errors import harmless


def safe(text: str) -> str:
    """The text for a table or a line with markup: brackets stay as they are, control characters become visible."""
    from rich.markup import escape  # with all of rich, which a wrong command line does not wait for

    return escape(harmless(text))
