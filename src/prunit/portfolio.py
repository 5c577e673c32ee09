"""Portfolios by hand: `prunit.portfolio.add` puts a model that was trained anywhere into one.

`prunit.build` makes a whole portfolio, training included; what `add` writes is the same, and the same commands take it.
`publish` sends a folder to an address (`s3://bucket/portfolio`), `fetch` brings one here: whole, or not at all.
"""

from prunit.edge.publishing import fetch, publish
from prunit.recipe.adding import add

__all__ = ["add", "fetch", "publish"]
