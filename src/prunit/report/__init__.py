"""A portfolio as a person reads it: one self-contained HTML page, and the rows that the command line prints.

summary.py    SummaryRow: a variant beside the dense one
headline.py   what came of it in a sentence
numbers.py    figures in words: 271 k, 1.09 MB, 3.6× less
accuracy.py   plots of accuracy against a cost
charts.py     widths per group; training curves
tables.py     tables in HTML
page.py       the page: write_report()
evaluation.py labelled images that were judged
page.css      its looks, light and dark
again.py      the page after other figures were measured
page.js       draws the plots, in the page's colours
"""

from typing import TYPE_CHECKING, Final

from prunit.later import resolver

if TYPE_CHECKING:
    from prunit.report.again import rewrite_report
    from prunit.report.page import write_report
    from prunit.report.summary import SummaryRow, summary_rows

__all__ = ["SummaryRow", "rewrite_report", "summary_rows", "write_report"]

_HOMES: Final = {
    "SummaryRow": "summary",
    "rewrite_report": "again",
    "summary_rows": "summary",
    "write_report": "page",
}


if not TYPE_CHECKING:  # to a type checker there are the names above, and no others
    # Resolved on first use: the command line words its figures without the page and what that is made of.
    __getattr__ = resolver(__name__, _HOMES)
