"""How often something may happen: a bucket that fills with time, and is taken from. Pure."""

from msgspec import Struct


class Rate(Struct, frozen=True):
    count_max: float
    """At once, after a while of nothing."""
    window_s: float
    """In which as many come back."""


class Bucket(Struct, frozen=True):
    """What is left of a rate, and when that was so; new, nothing was taken yet."""

    taken: float = 0.0
    at_s: float = 0.0


FULL = Bucket()


def take(bucket: Bucket, rate: Rate, now_s: float, *, count: int = 1) -> Bucket | None:
    """The bucket after so many more; None when the rate does not allow it.

    A clock that is set back only makes it wait.
    """
    elapsed_s = max(0.0, now_s - bucket.at_s)
    taken = max(0.0, bucket.taken - elapsed_s * rate.count_max / rate.window_s)
    if taken + count > rate.count_max:
        return None
    return Bucket(taken + count, now_s)
