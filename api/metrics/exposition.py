"""The text that Prometheus reads; without IO.

https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Final, Literal, TypeAlias

from msgspec import Struct

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

Labels: TypeAlias = dict[str, str]
Samples: TypeAlias = Iterable[tuple[Labels, float | None]]


class Family(Struct, frozen=True):
    name: str
    kind: Literal["gauge", "counter"]
    help: str
    samples: Samples
    """A value of None is not told."""


class Distribution(Struct, frozen=True):
    counts: Sequence[int]
    """Of each bucket alone; the last one has what is beyond all bounds."""
    total: float


class Histogram(Struct, frozen=True):
    name: str
    help: str
    bounds: Sequence[float]
    samples: Iterable[tuple[Labels, Distribution]]


def render(families: Iterable[Family | Histogram]) -> bytes:
    lines = []
    for family in families:
        name = f"butterbase_{family.name}"
        kind = family.kind if isinstance(family, Family) else "histogram"
        lines += [f"# HELP {name} {family.help}", f"# TYPE {name} {kind}"]
        lines += _of_family(name, family) if isinstance(family, Family) else _of(name, family)
    return "\n".join([*lines, ""]).encode()


def _of_family(name: str, family: Family) -> Iterator[str]:
    for labels, value in family.samples:
        if value is not None:
            yield f"{name}{_labels(labels)} {value:.15g}"


def _of(name: str, histogram: Histogram) -> Iterator[str]:
    ends = [f"{bound:g}" for bound in histogram.bounds] + ["+Inf"]
    for labels, found in histogram.samples:
        counts = list(accumulate(found.counts))
        for end, count in zip(ends, counts, strict=True):
            yield f"{name}_bucket{_labels(labels | {'le': end})} {count}"
        yield f"{name}_sum{_labels(labels)} {found.total:.15g}"
        yield f"{name}_count{_labels(labels)} {counts[-1]}"


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items()) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
