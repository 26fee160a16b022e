"""Types of a config's values: what each takes, from TOML or as a command line gives it."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveInt


def _several(value: object) -> object:
    """One value, or several separated by commas, where a list is expected."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")] if value else []
    return value if isinstance(value, list | tuple) else [value]


def _layers(value: object) -> object:
    """A word, or numbers of layers."""
    if value in ("last", "auto"):
        return value
    several = _several(value)
    parts = [str(part) for part in several] if isinstance(several, list | tuple) else []
    numbers = tuple(int(part) for part in parts if part.isdecimal())
    if not numbers or len(numbers) < len(parts) or numbers != tuple(sorted({*numbers} - {0})):
        raise ValueError("give last, auto, or numbers of layers from 1 upwards in rising order")
    return numbers


def _carve(value: object) -> object:
    """A word, or a number of rows."""
    number = int(value) if isinstance(value, str) and value.isdecimal() else value
    if number != "auto" and (not isinstance(number, int) or number < 0):
        raise ValueError("give auto or a number of rows")
    return number


def _optional(value: object) -> object:
    return None if value in ("", "none") else value


def _entries(value: object) -> object:
    """As `_several`, of values that have commas themselves: divided by |."""
    if isinstance(value, str):
        return [part.strip() for part in value.split("|")] if value else []
    return value


Names = Annotated[tuple[str, ...], BeforeValidator(_several)]
Entries = Annotated[tuple[str, ...], BeforeValidator(_entries)]
Sizes = Annotated[tuple[PositiveInt, ...], BeforeValidator(_several)]
Layers = Annotated[Literal["last", "auto"] | tuple[PositiveInt, ...], BeforeValidator(_layers)]
Count = Annotated[PositiveInt | None, BeforeValidator(_optional)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what jax.random.key tells apart
Fraction = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Carve = Annotated[Literal["auto"] | NonNegativeInt, BeforeValidator(_carve)]
Rate = Annotated[Positive | None, BeforeValidator(_optional)]
