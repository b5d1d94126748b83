import pytest

from butterbase.api.auth.admin.paging import Page, link_header, read_page
from butterbase.api.auth.errors import InvalidAuthBodyError


@pytest.mark.parametrize(
    ("number", "size", "page"),
    [
        (None, None, Page(1, 50)),
        ("", "", Page(1, 50)),
        ("0", "0", Page(1, 50)),
        ("3", "10", Page(3, 10)),
        ("1", "100000", Page(1, 1000)),
    ],
)
def test_pages_have_defaults_and_a_limit(number: str | None, size: str | None, page: Page) -> None:
    assert read_page(number, size) == page


@pytest.mark.parametrize("text", ["-1", "x", "1.5", "٣", "99999999999", "2147483649"])
def test_what_is_no_page_is_refused(text: str) -> None:
    with pytest.raises(InvalidAuthBodyError, match="Bad Pagination Parameters"):
        read_page(text, None)


def test_links_lead_to_the_next_and_the_last_page() -> None:
    assert link_header("/auth/v1/admin/users", Page(1, 2), 5, filters={"filter": "a b"}) == (
        '</auth/v1/admin/users?page=2&per_page=2&filter=a+b>; rel="next", '
        '</auth/v1/admin/users?page=3&per_page=2&filter=a+b>; rel="last"'
    )


@pytest.mark.parametrize(("page", "total"), [(Page(3, 2), 5), (Page(1, 50), 0), (Page(9, 2), 5)])
def test_no_link_leads_beyond_the_last_page(page: Page, total: int) -> None:
    assert 'rel="next"' not in link_header("/x", page, total, filters={})
