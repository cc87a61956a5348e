"""Numbers as the report prints them: few digits, grouped thousands, a true minus sign, and words for NaN."""

import math

NOT_FINITE = "not finite"

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_MINUS = "\N{MINUS SIGN}"
_FIXED_POINT_EXPONENTS = range(-3, 7)


def count(value: int) -> str:
    """12345 as '12,345'."""
    return f"{value:,}"


def counted(number: int, thing: str) -> str:
    """1 'shard' as '1 shard', 12 of them as '12 shards'."""
    return f"{count(number)} {thing}" if number == 1 else f"{count(number)} {thing}s"


def significant(value: float, digits: int = 3) -> str:
    """A number with `digits` significant digits; powers of ten below 0.001 and from ten million on."""
    if not math.isfinite(value):
        return NOT_FINITE
    return _print(value, _exponent(value), digits, sign="-")


def score(value: float, largest: float) -> str:
    """A signed score, with as many decimals as give the largest score of its query three significant digits.

    Scores of one query so line up digit under digit.
    """
    if not math.isfinite(value):
        return NOT_FINITE
    exponent = _exponent(largest)
    return _print(value, exponent if exponent in _FIXED_POINT_EXPONENTS else _exponent(value), digits=3, sign="+")


def percent(fraction: float) -> str:
    """0.4132 as '41%', 0.0413 as '4.1%', 0.00413 as '0.41%'."""
    if not math.isfinite(fraction):
        return NOT_FINITE
    value = 100 * fraction
    if 0 < value < 0.01:
        return "below 0.01%"
    decimals = 0 if value == 0 or abs(value) >= 9.95 else 1 if abs(value) >= 0.995 else 2
    return f"{value:.{decimals}f}%".replace("-", _MINUS)


def bar_width(value: float, largest: float) -> str:
    """Width of a proportional bar as a CSS percentage: |value| / largest, within 0 to 100 %; 0 % if not finite."""
    share = abs(value) / largest if largest > 0 else 0.0
    return f"{100 * min(share, 1.0):.1f}%" if math.isfinite(share) else "0%"


def _exponent(value: float) -> int:
    """Power of ten of the leading digit."""
    return math.floor(math.log10(abs(value))) if value else 0


def _print(value: float, exponent: int, digits: int, sign: str) -> str:
    if exponent in _FIXED_POINT_EXPONENTS:
        text = f"{value:{sign},.{max(0, digits - 1 - exponent)}f}"
    else:
        mantissa, power = f"{value:{sign}.{digits - 1}e}".split("e")
        text = f"{mantissa}\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}10{str(int(power)).translate(_SUPERSCRIPTS)}"
    return text.replace("-", _MINUS)
