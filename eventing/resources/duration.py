"""ISO 8601 durations, as delivery options write them: `PT0.5S`, `PT2M`, `P1D`."""

import re

__all__ = ["parse_duration"]

_NUMBER = r"(-?\d+(?:[.,]\d+)?)"
_DURATION = re.compile(
    rf"([+-])?P(?:{_NUMBER}Y)?(?:{_NUMBER}M)?(?:{_NUMBER}W)?(?:{_NUMBER}D)?"
    rf"(?:T(?=[-\d])(?:{_NUMBER}H)?(?:{_NUMBER}M)?(?:{_NUMBER}S)?)?"
)
# A year and a month have the mean length of the Gregorian calendar: as a waiting time nobody can tell.
_SECONDS = (31_556_952.0, 2_629_746.0, 604_800.0, 86_400.0, 3_600.0, 60.0, 1.0)
_LONGEST = 64


def parse_duration(text: str) -> float:
    """The duration in seconds, negative where it says so; ValueError if the text is not a duration."""
    if text in {"0", "P0"}:
        return 0.0
    match = _DURATION.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None or not any(match.groups()[1:]):
        raise ValueError(f"{text[:_LONGEST]!r} is not an ISO 8601 duration (as in PT0.5S, PT2M, P1D)")
    sign, *numbers = match.groups()
    seconds = sum(float(number.replace(",", ".")) * unit for number, unit in zip(numbers, _SECONDS, strict=True) if number)
    return -seconds if sign == "-" else seconds
