"""Names that can stand in an address, a header and a file name: of portfolios, and of what is served."""

import itertools
import re
import unicodedata
from collections.abc import Collection, Mapping
from typing import Final

from prunit.edge.portfolio import Portfolio, Variant

_SAFE: Final = re.compile(r"(?!\.)(?!.*\.\.)[A-Za-z0-9._-]{1,128}")
_LONGEST: Final = 60
"""Characters of a part; longer names of models are cut at their end."""


def is_public(name: str) -> bool:
    """Whether a name is one path segment of safe characters: letters and digits of ASCII, dots, dashes, underscores."""
    return _SAFE.fullmatch(name) is not None


def public_name(text: str, otherwise: str = "unnamed") -> str:
    """What a model, a data set or a variant is called in public; `otherwise` if nothing of the text can be.

    Of a path the last part stays: `/home/me/nets/small.py:make` is `small-make`, `photos/` is `photos`. Accents are
    left out, and whatever else is no safe character becomes a dash.
    """
    file, colon, inside = re.sub(r"[\\/]+", "/", text).partition(".py:")
    last = next((part for part in reversed(file.split("/")) if part.strip(". ")), "")
    if colon:
        last = f"{last}-{inside}"
    plain = unicodedata.normalize("NFKD", last).encode("ascii", "ignore").decode()
    dashed = re.sub(r"\.{2,}", ".", re.sub(r"[^A-Za-z0-9._]+", "-", plain))
    return dashed[:_LONGEST].strip(".-_") or otherwise


def portfolio_name(model: str, data: str) -> str:
    """The public name of a portfolio, made once when it is built: `resnet20-cifar10`."""
    return f"{public_name(model, 'model')}-{public_name(data, 'data')}"


def published(portfolio: Portfolio) -> tuple[Portfolio, dict[str, str]]:
    """The portfolio, it and its variants under names that can be served; and which addresses became which others.

    Names given by an older prunit or by hand may hold anything, such as the path of a model's file. No two variants get
    the same name. The addresses are for `today`.
    """
    name = portfolio.name
    if not is_public(name):
        composed = name == f"{portfolio.model}-{portfolio.data}"
        name = portfolio_name(portfolio.model, portfolio.data) if composed else public_name(name, "portfolio")
    taken = {variant.name for variant in portfolio.variants if is_public(variant.name)}
    variants: list[Variant] = []
    moved = {f"/v2/models/{portfolio.name}": f"/v2/models/{name}"}
    for variant in portfolio.variants:
        own = variant.name if is_public(variant.name) else _free(variant.name, taken)
        taken.add(own)
        variants.append(variant.model_copy(update={"name": own}))
        moved[f"/v2/models/{name}/versions/{variant.name}"] = f"/v2/models/{name}/versions/{own}"
    found = portfolio.model_copy(update={"name": name, "variants": tuple(variants)})
    return found, {before: now for before, now in moved.items() if before != now}


def today(path: str, moved: Mapping[str, str]) -> str:
    """An address, not escaped, in which names of `published`'s portfolio that were replaced are those of today."""
    for before, now in moved.items():
        rest = path.removeprefix(before)
        if rest != path and rest[:1] in ("", "/"):
            path = now + rest
    return path


def _free(name: str, taken: Collection[str]) -> str:
    plain = public_name(re.sub(r"[\\/]", "-", name), "variant")
    numbered = (plain if number == 1 else f"{plain}-{number}" for number in itertools.count(1))
    return next(each for each in numbered if each not in taken)
