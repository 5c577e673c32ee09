"""Settings as people write them, and what they mean: one name or several, a rounding, a duration, a budget."""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Annotated, Literal, cast

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from prunit.edge.precision import Precision
from prunit.errors import ConfigError, UnknownNameError
from prunit.mcu.parts import part
from prunit.units import seconds_of


def _names_listed(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _precisions_listed(value: object) -> object:
    """One precision or several, as a list or as 'int8,fp32'."""
    several = value.split(",") if isinstance(value, str) else value
    if not isinstance(several, list | tuple):
        return value
    return tuple(dict.fromkeys(each.strip().lower() if isinstance(each, str) else each for each in several))


def _parts_listed(value: object) -> object:
    """Parts by name, as a list or with commas; each must be known."""
    several = value.split(",") if isinstance(value, str) else value
    if not isinstance(several, list | tuple) or not all(isinstance(each, str) for each in several):
        return value
    names = tuple(dict.fromkeys(each.strip().lower() for each in several if each.strip()))
    try:
        return tuple(part(name).name for name in names)
    except UnknownNameError as error:
        raise PydanticCustomError("part", "{reason}", {"reason": str(error)}) from error


def _budgets_listed(value: object) -> object:
    """One budget or several, each as text or as {"params": 1/16}: a list of texts."""
    several = value if isinstance(value, list | tuple) else (value,)
    return tuple(",".join(f"{k}={_limit(v)}" for k, v in b.items()) if isinstance(b, Mapping) else b for b in several)


def _limit(value: object) -> str:
    """A share given as a number by the simple fraction that was meant: 1/3 for 0.3333333333333333."""
    near = Fraction(value).limit_denominator(4096) if isinstance(value, float) and 0 < value <= 1 else None
    return str(near) if near is not None and math.isclose(near, cast("float", value), rel_tol=1e-12) else str(value)


def _rounding(value: object) -> object:
    """'auto' or a whole number of channels, as such or as text."""
    text = str(value).strip().lower()
    if isinstance(value, bool) or not (text == "auto" or (text.isdecimal() and int(text) >= 1)):
        raise PydanticCustomError("rounding", "input should be a whole number of channels, at least 1, or 'auto'")
    return text if text == "auto" else int(text)


def _padding(value: object) -> object:
    """'auto', 'off' or a whole number of channels, as such or as text."""
    text = str(value).strip().lower()
    if isinstance(value, bool) or not (text in ("auto", "off") or (text.isdecimal() and int(text) >= 1)):
        raise PydanticCustomError("padding", "input should be a whole number of channels, at least 1, 'auto' or 'off'")
    return text if text in ("auto", "off") else int(text)


def _duration(value: object) -> object:
    """A duration as text, found readable."""
    if value is None:
        return None
    try:
        seconds_of(str(value))
    except ConfigError as error:
        raise PydanticCustomError("duration", "{reason}", {"reason": str(error)}) from error
    return str(value).strip()


Duration = Annotated[str | None, BeforeValidator(_duration)]
RoundTo = Annotated[int | Literal["auto"], BeforeValidator(_rounding)]
PadTo = Annotated[int | Literal["auto", "off"], BeforeValidator(_padding)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Names = Annotated[tuple[str, ...], BeforeValidator(_names_listed)]
Budgets = Annotated[tuple[str, ...], BeforeValidator(_budgets_listed)]
Parts = Annotated[tuple[str, ...], BeforeValidator(_parts_listed)]
Precisions = Annotated[tuple[Precision, ...], BeforeValidator(_precisions_listed), Field(min_length=1)]
