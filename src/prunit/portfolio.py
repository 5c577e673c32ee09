"""Portfolios by hand: `prunit.portfolio.add` puts a model that was trained anywhere into one.

`prunit.build` makes a whole portfolio, training included; what `add` writes is the same, and the same commands take it.
"""

from prunit.recipe.adding import add

__all__ = ["add"]
