"""Pages of a list: `?page=&per_page=` in, `Link` and `X-Total-Count` out. RFC 8288."""

from urllib.parse import urlencode

from msgspec import Struct

from butterbase.api.auth.errors import InvalidAuthBodyError

PER_PAGE = 50
PER_PAGE_MAX = 1000

_PAGE_MAX = 2**31


class Page(Struct, frozen=True):
    """The first page is 1."""

    number: int = 1
    size: int = PER_PAGE

    @property
    def offset(self) -> int:
        return (self.number - 1) * self.size


def read_page(number: str | None, size: str | None) -> Page:
    """What is empty or 0 takes the default, as clients send it. Raises InvalidAuthBodyError."""
    return Page(_count(number) or 1, min(_count(size) or PER_PAGE, PER_PAGE_MAX))


def link_header(path: str, page: Page, total: int, *, filters: dict[str, str]) -> str:
    """Where the next and the last page are.

    `page` comes first in each link: supabase-js reads what follows the link's first `=`.
    """
    last = -(-total // page.size)
    targets = [("next", page.number + 1)] if page.number < last else []
    links = []
    for relation, number in [*targets, ("last", last)]:
        query = urlencode({"page": number, "per_page": page.size, **filters})
        links.append(f'<{path}?{query}>; rel="{relation}"')
    return ", ".join(links)


def _count(text: str | None) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()) or len(text) > 10 or int(text) > _PAGE_MAX:
        raise InvalidAuthBodyError(f"Bad Pagination Parameters: {text[:40]!r} is not a count")
    return int(text)
