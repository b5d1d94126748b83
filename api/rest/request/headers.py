"""A request's headers: looked up by name, and as the JSON objects that SQL functions read."""

import msgspec


class Headers:
    """Names in lowercase. Values are UTF-8, as PostgREST has it, or else latin-1."""

    __slots__ = ("_first", "_given")

    def __init__(self, given: list[tuple[bytes, bytes]]) -> None:
        self._given = given
        self._first: dict[str, str] = {}
        for name, value in given:
            self._first.setdefault(name.decode("latin-1"), _text(value))

    def get(self, name: str) -> str | None:
        return self._first.get(name)

    def all(self, name: str) -> tuple[str, ...]:
        if name not in self._first:
            return ()
        wanted = name.encode()
        return tuple(_text(value) for key, value in self._given if key == wanted)

    def as_json(self) -> bytes:
        """For `request.headers`; cookies stand apart."""
        if "cookie" not in self._first:
            return msgspec.json.encode(self._first)
        return msgspec.json.encode({k: v for k, v in self._first.items() if k != "cookie"})

    def cookies_as_json(self) -> bytes:
        """For `request.cookies`: what stands between semicolons, of a name twice the last."""
        text = self._first.get("cookie")
        if text is None:
            return b"{}"
        cookies = {}
        for pair in text.split(";"):
            name, _, value = pair.partition("=")
            if name := name.strip():
                cookies[name] = value.strip()
        return msgspec.json.encode(cookies)


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
