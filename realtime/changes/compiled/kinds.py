"""The types whose values we read and compare exactly as Postgres does.

A value is read from Postgres's text format, with the settings of the log's connection (DateStyle
ISO, TimeZone UTC), into a Python object that equals, orders and hashes as the value does there.
"""

import enum
import re
from decimal import Decimal, InvalidOperation
from math import inf, isnan
from typing import Any, Final, TypeAlias

from butterbase.realtime.changes.compiled.errors import UnanswerableError
from butterbase.realtime.changes.compiled.json_text import parse_json


class Kind(enum.Enum):
    BOOL = enum.auto()
    INT2 = enum.auto()
    INT4 = enum.auto()
    INT8 = enum.auto()
    NUMERIC = enum.auto()
    FLOAT4 = enum.auto()
    FLOAT8 = enum.auto()
    TEXT = enum.auto()
    """And varchar."""
    BPCHAR = enum.auto()
    UUID = enum.auto()
    ENUM = enum.auto()
    DATE = enum.auto()
    TIMESTAMP = enum.auto()
    TIMESTAMPTZ = enum.auto()
    TIME = enum.auto()
    JSON = enum.auto()
    JSONB = enum.auto()
    OTHER = enum.auto()
    """Any other; all that is asked of it is whether it is NULL."""


Value: TypeAlias = Any
"""None is SQL NULL; JSON has an object of its own for its null."""

INTEGERS: Final = frozenset({Kind.INT2, Kind.INT4, Kind.INT8})
MOMENTS: Final = frozenset({Kind.DATE, Kind.TIMESTAMP})
TEXTS: Final = frozenset({Kind.TEXT, Kind.BPCHAR})

EQUALITY: Final = (
    INTEGERS,
    MOMENTS,
    *(
        frozenset({kind})
        for kind in (
            Kind.BOOL,
            Kind.NUMERIC,
            Kind.FLOAT4,
            Kind.FLOAT8,
            Kind.TEXT,
            Kind.BPCHAR,
            Kind.UUID,
            Kind.ENUM,
            Kind.TIMESTAMPTZ,
            Kind.TIME,
        )
    ),
)
"""Kinds that compare with one another."""

ORDERED: Final = (
    INTEGERS
    | MOMENTS
    | {Kind.BOOL, Kind.NUMERIC, Kind.FLOAT4, Kind.FLOAT8, Kind.UUID, Kind.TIMESTAMPTZ, Kind.TIME}
)
"""Those whose order depends neither on a collation nor on the catalog."""

KIND_OF_OID: Final[dict[int, Kind]] = {
    16: Kind.BOOL,
    20: Kind.INT8,
    21: Kind.INT2,
    23: Kind.INT4,
    25: Kind.TEXT,
    114: Kind.JSON,
    700: Kind.FLOAT4,
    701: Kind.FLOAT8,
    1042: Kind.BPCHAR,
    1043: Kind.TEXT,
    1082: Kind.DATE,
    1083: Kind.TIME,
    1114: Kind.TIMESTAMP,
    1184: Kind.TIMESTAMPTZ,
    1700: Kind.NUMERIC,
    2950: Kind.UUID,
    3802: Kind.JSONB,
}
"""pg_type.oid, from pg_type.dat."""

_INTEGER_BITS: Final = {Kind.INT2: 16, Kind.INT4: 32, Kind.INT8: 64}
_INTEGER = re.compile(r"[ \t\n\v\f\r]*[+-]?\d{1,40}[ \t\n\v\f\r]*", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_MOMENT = re.compile(
    r"(?P<year>\d{4,})-(?P<month>\d\d)-(?P<day>\d\d)"
    r"(?: (?P<time>[\d:.]+)(?P<offset>[+-]\d\d(?::\d\d){0,2})?)?(?P<bc> BC)?",
    re.ASCII,
)
_TIME = re.compile(r"(\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?", re.ASCII)
_DAY_US: Final = 86_400_000_000


class _NaN:
    """Not a number, which in Postgres equals itself and is greater than every number."""

    def __eq__(self, other: object) -> bool:
        return other is self

    def __hash__(self) -> int:
        return 1

    def __lt__(self, other: object) -> bool:
        return False

    def __le__(self, other: object) -> bool:
        return other is self

    def __gt__(self, other: object) -> bool:
        return other is not self

    def __ge__(self, other: object) -> bool:
        return True


NAN: Final = _NaN()


def is_comparable(left: Kind, right: Kind, *, in_order: bool) -> bool:
    """Whether we know if values are equal, and with `in_order` which is the greater."""
    is_equal_known = any(left in kinds and right in kinds for kinds in EQUALITY)
    return is_equal_known and (not in_order or left in ORDERED)


def read(kind: Kind, text: str) -> Value:
    """The value of a text that Postgres wrote. Raises UnanswerableError."""
    match kind:
        case Kind.TEXT | Kind.UUID | Kind.ENUM | Kind.OTHER:
            return text
        case Kind.BPCHAR:
            return text.rstrip(" ")  # blanks at the end do not count
        case Kind.INT2 | Kind.INT4 | Kind.INT8:
            return to_integer(kind, text)
        case Kind.BOOL:
            return _read_bool(text)
        case Kind.NUMERIC | Kind.FLOAT4 | Kind.FLOAT8:
            return _read_number(kind, text)
        case Kind.DATE | Kind.TIMESTAMP | Kind.TIMESTAMPTZ:
            return _read_moment(kind, text)
        case Kind.TIME:
            return _read_time(text)
        case Kind.JSON | Kind.JSONB:
            return parse_json(text)


def to_integer(kind: Kind, text: str) -> int:
    """Raises UnanswerableError."""
    # Postgres 16 reads more than this (hexadecimal, underscores), and answers for it.
    if not _INTEGER.fullmatch(text):
        raise UnanswerableError(f"not an integer: {text[:60]!r}")
    return in_range(kind, int(text))


def in_range(kind: Kind, value: int) -> int:
    """Raises UnanswerableError."""
    limit = 1 << (_INTEGER_BITS[kind] - 1)
    if not -limit <= value < limit:
        raise UnanswerableError(f"out of range: {value}")
    return value


def to_uuid(text: str) -> str:
    """Raises UnanswerableError."""
    lowered = text.lower()
    # Postgres reads more than this (braces, hyphens elsewhere), and answers for it.
    if not _UUID.fullmatch(lowered):
        raise UnanswerableError(f"not a uuid: {text[:60]!r}")
    return lowered


def _read_bool(text: str) -> bool:
    if text not in ("t", "f", "true", "false"):
        raise UnanswerableError(f"not a boolean: {text[:60]!r}")
    return text in ("t", "true")


def _read_number(kind: Kind, text: str) -> Value:
    if text == "NaN":
        return NAN
    try:
        if kind is not Kind.NUMERIC:
            # Of a float4 it is the shortest text, and different ones of these are different here.
            number = float(text)
            return NAN if isnan(number) else number
        return Decimal(text)
    except (ValueError, InvalidOperation):
        raise UnanswerableError(f"not a number: {text[:60]!r}") from None


def _read_moment(kind: Kind, text: str) -> float:
    """Microseconds since 1970, in UTC where there is a time zone."""
    if text in ("infinity", "-infinity"):
        return inf if text == "infinity" else -inf
    found = _MOMENT.fullmatch(text)
    has_time, has_offset = kind is not Kind.DATE, kind is Kind.TIMESTAMPTZ
    if (
        found is None
        or (found["time"] is not None) != has_time
        or (found["offset"] is not None) != has_offset
    ):
        raise UnanswerableError(f"not a date in ISO style: {text[:60]!r}")
    year = int(found["year"])
    days = _days(1 - year if found["bc"] else year, int(found["month"]), int(found["day"]))
    moment = days * _DAY_US
    if has_time:
        moment += _read_time(found["time"])
    if has_offset:
        moment -= _offset_us(found["offset"])
    return moment


def _days(year: int, month: int, day: int) -> int:
    """Since 1970-01-01, in the proleptic Gregorian calendar; the year 0 is 1 BC."""
    # Years from March on, so that the leap day is a year's last; 400 of them have 146,097 days.
    years, months = (year, month - 3) if month > 2 else (year - 1, month + 9)
    leap_days = years // 4 - years // 100 + years // 400
    return years * 365 + leap_days + (153 * months + 2) // 5 + day - 1 - 719_468


def _read_time(text: str) -> int:
    found = _TIME.fullmatch(text)
    if found is None:
        raise UnanswerableError(f"not a time in ISO style: {text[:60]!r}")
    hours, minutes, seconds, fraction = found.groups()
    whole_s = (int(hours) * 60 + int(minutes)) * 60 + int(seconds)
    return whole_s * 1_000_000 + int((fraction or "").ljust(6, "0"))


def _offset_us(text: str) -> int:
    parts = [int(part) for part in text[1:].split(":")]
    seconds = sum(part * unit for part, unit in zip(parts, (3600, 60, 1), strict=False))
    return (-seconds if text[0] == "-" else seconds) * 1_000_000
