import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from butterbase.api.auth import redirects
from butterbase.api.auth.globs import Glob, glob
from butterbase.api.auth.redirects import is_allowed

SITE = "https://app.example/start"
LIST = (
    "https://exact.example/welcome",
    "https://*.preview.example/**",
    "https://files.example/*/page",
    "http://localhost:3000/**",
    "com.example.app://in",
    "com.example.app:/in",
    "exp://192.168.1.*:8081/--/**",
    "https://{one,two}.example/",
    "https://[a-c].range.example/",
    "https://[!a-c].other.example/",
)


@pytest.mark.parametrize(
    "url",
    [
        "https://app.example",
        "https://app.example/anywhere?at=all#x",
        "HTTPS://App.Example/",
        "https://app.example:443/",
        "https://exact.example/welcome",
        "https://exact.example/welcome#later",
        "https://a.preview.example/",
        "https://a.preview.example",
        "https://a.preview.example/deep/er?x=1",
        "https://files.example/one/page",
        "http://localhost:3000/x",
        "com.example.app://in",
        "com.example.app:/in",
        "https://two.example/",
        "https://b.range.example/",
        "https://d.other.example/",
    ],
)
def test_the_site_and_the_list_are_allowed(url: str) -> None:
    assert is_allowed(url, site_url=SITE, allow_list=LIST)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://evil.example/",
        "//evil.example/",
        "/path",
        "https://app.example.evil.example/",
        "https://evilapp.example/",
        "http://app.example/",
        "https://app.example:8443/",
        "https://app.example@evil.example/",
        "https://evil.example#@app.example/",
        "https://evil.example\\@app.example/",
        "https://evil.example\\.app.example/",
        "https:\\\\app.example",
        "https:app.example",
        "https:/app.example",
        "https:///app.example",
        "https://app.example\t.evil.example",
        "https://ap\np.example",
        " https://app.example",
        "https://app.example ",
        "https://app.example\0.evil.example",
        "https://app。example/",
        "https://äpp.example/",
        "javascript:alert(1)",
        "JavaScript://app.example/%0aalert(1)",
        "data:text/html,x",
        "vbscript:x",
        "file:///etc/passwd",
        "blob:https://app.example/1",
        "https://exact.example/welcome?next=https://evil.example",
        "https://exact.example/welcome/",
        "https://exact.example/",
        "https://a.b.preview.example/",
        "https://evil.example/.preview.example/",
        "https://evil.example?.preview.example/",
        "https://evil.example#.preview.example/",
        "https://files.example/one/two/page",
        "https://files.example/one.two/page",
        "https://files.example/one/../page",
        "https://a.preview.example/x/../../y",
        "https://a.preview.example/x/%2e%2e/y",
        "https://a.preview.example/x/.%2E/y",
        "http://localhost:3001/x",
        "http://localhost/x",
        "com.example.app://other",
        "com.example.other://in",
        "https://three.example/",
        "https://d.range.example/",
        "https://a.other.example/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://127.1/",
        "https://[::ffff:7f00:1]/",
        "https://app.example:99999/",
        "https://app.example:80x/",
        "https://" + "a" * 3000 + ".preview.example/",
    ],
)
def test_nothing_else_is(url: str) -> None:
    assert not is_allowed(url, site_url=SITE, allow_list=LIST)
    assert redirects.choose(url, site_url=SITE, allow_list=LIST) == SITE


@pytest.mark.parametrize(
    ("site", "url", "allowed"),
    [
        ("http://localhost:3000", "http://localhost:51234/x", True),
        ("http://127.0.0.1:3000", "http://127.0.0.1:51234/x", True),
        ("http://[::1]:3000", "http://[::1]:51234/x", True),
        ("http://127.0.0.1:3000", "http://localhost:3000/x", False),
        ("http://localhost:3000", "http://localhost.evil.example:3000/", False),
        ("http://intranet:3000", "http://intranet:51234/x", False),
        ("com.example.app://start", "com.example.app://start/deep", True),
        ("com.example.app:start", "com.example.app:other", False),
    ],
)
def test_on_this_machine_any_port_is_the_sites(site: str, url: str, allowed: bool) -> None:
    assert is_allowed(url, site_url=site) is allowed


@pytest.mark.parametrize(
    "entry",
    [
        "https://[a.example/",
        "https://{a,b.example/",
        "https://[].example/",
        "*" * 40,
        "",
        "://",
        "[",
    ],
)
def test_an_entry_that_cannot_be_read_allows_nothing(entry: str) -> None:
    assert not is_allowed("https://a.example/", site_url=SITE, allow_list=(entry,))


def test_two_stars_alone_allow_no_address_with_a_host() -> None:
    assert not is_allowed("https://evil.example/", site_url=SITE, allow_list=("**", "*", "*://**"))
    assert not is_allowed("evil://in", site_url=SITE, allow_list=("**", "*", "*://**"))


@pytest.mark.parametrize(
    "entry",
    [
        "https://**",
        "https://**/**",
        "https://*.*/**",
        "https://?*:443/",
        "http*://**:*/**",
        "*://*.*",
        "https://[!-]**.**/",
        "https://**:443/**",
    ],
)
def test_an_entry_that_names_nothing_of_a_host_allows_nothing(entry: str) -> None:
    assert not is_allowed("https://evil.example/", site_url=SITE, allow_list=(entry,))


def test_an_entry_may_leave_the_rest_open() -> None:
    for entry, url in [
        ("com.example.app://**", "com.example.app://in/deep"),
        ("http{,s}://*.example.org/**", "http://a.example.org/x"),
        ("http://\\[::1\\]:*/**", "http://[::1]:5173/x"),
        ("http://127.0.0.1:*/**", "http://127.0.0.1:5173/x"),
        ("https://*.dev/**", "https://mine.dev/x"),
    ]:
        assert is_allowed(url, site_url=SITE, allow_list=(entry,)), entry


def test_stars_of_a_host_do_not_reach_into_the_path() -> None:
    entry = ("https://**.example.com/",)
    assert is_allowed("https://a.b.example.com/", site_url=SITE, allow_list=entry)
    assert not is_allowed("https://evil.org/a.example.com/", site_url=SITE, allow_list=entry)
    assert not is_allowed("https://evil.org?a.example.com/", site_url=SITE, allow_list=entry)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    allowed = is_allowed(text, site_url=SITE, allow_list=LIST)
    assert not allowed or redirects.parse(text) is not None


@given(
    st.text(alphabet="htps:/\\@#?.%aevilexmp[]0\t\n", max_size=40).map(
        "https://app.example".__add__
    )
)
def test_what_is_taken_for_the_site_is_of_its_host(url: str) -> None:
    if is_allowed(url, site_url=SITE):
        assert urlsplit(url).hostname == "app.example"


@given(st.text(alphabet="ab*?[]{},\\!-./:", max_size=30), st.text(alphabet="ab./:?", max_size=30))
def test_any_entry_is_a_glob_or_nothing(entry: str, path: str) -> None:
    is_allowed(f"https://a.b/{path}", site_url=SITE, allow_list=(entry, f"https://a.b/{entry}"))


def test_the_first_allowed_one_is_chosen() -> None:
    asked = ("https://evil.example/", None, "", "https://exact.example/welcome", SITE)
    assert redirects.choose(*asked, site_url=SITE, allow_list=LIST) == asked[3]


def test_parameters_take_the_place_of_equal_ones() -> None:
    url = redirects.with_query("https://a.b/c?code=old&x=1#f", {"code": "n&w"})
    assert url == "https://a.b/c?x=1&code=n%26w"
    assert redirects.with_fragment(url, {"a": "b c"}) == f"{url}#a=b+c"
    assert redirects.with_query("app://in", {"code": "1"}) == "app://in?code=1"


def test_an_error_is_told_to_servers_and_to_pages() -> None:
    url = redirects.with_error(
        "https://a.b/?error=x", error="access_denied", code="user_banned", description="No."
    )
    query, _, fragment = url.partition("?")[2].partition("#")
    told = "error=access_denied&error_code=user_banned&error_description=No."
    assert (query, fragment) == (told, f"{told}&sb=")


@pytest.mark.parametrize(
    "entry",
    [
        "https://x.com/**a**a**ab",
        "https://x.com/" + "**a" * 12 + "b",
        "https://x.com/" + "{a,aa}" * 100 + "b",
        "https://x.com/" + "{a,{a,{a,aa}}}" * 10 + "b",
        "https://x.com/" + "*a" * 400 + "b",
        "https://x.com/" + "{" * 900,
    ],
)
def test_no_address_takes_longer_than_its_length(
    entry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stranger's address, `redirect_to` of any request: nothing in it goes back."""
    looked_at = 0

    class Watched(str):
        __slots__ = ()

        def __iter__(self) -> Iterator[str]:
            nonlocal looked_at
            for character in str(self):
                looked_at += 1
                yield character

    matches = Glob.matches
    monkeypatch.setattr(Glob, "matches", lambda glob, text: matches(glob, Watched(text)))
    url = "https://x.com/" + "a" * 1900
    assert not is_allowed(url, site_url=SITE, allow_list=(entry,))
    assert looked_at <= len(url)


@pytest.mark.parametrize(
    ("entry", "url"),
    [
        ("https://example.com**", "https://example.com.evil.com/"),
        ("https://example.com**/**", "https://example.com.evil.com/"),
        ("https://example.com*", "https://example.comevil/"),
        ("https://example.com{,**}/", "https://example.com.evil.com/"),
        ("https://example.com**:*/", "https://example.com.evil.com:1/"),
        ("https://example.**/", "https://example.evil.com/"),
        ("**", "evil:/in"),
        ("*", "evil:in"),
        ("*:*", "evil:in"),
        ("com.example*", "com.example.evil:in"),
        ("https://x.com/app/**", "https://x.com/app/..;/admin"),
        ("https://x.com/app/**", "https://x.com/app/..%2fadmin"),
        ("https://x.com/app/**", "https://x.com/app/..%5cadmin"),
        ("https://x.com/app/**", "https://x.com/app%2f..%2fadmin"),
        ("https://x.com/app/**", "https://x.com/app/%252e%252e/admin"),
        ("https://x.com/app/**", "https://x.com/app/%2e%2e%3bx/admin"),
    ],
)
def test_an_entry_allows_no_more_than_it_names(entry: str, url: str) -> None:
    assert not is_allowed(url, site_url=SITE, allow_list=(entry,))


def test_two_stars_after_a_host_are_its_paths() -> None:
    entry = ("https://example.com**",)
    for url in ("https://example.com", "https://example.com/a/b?c", "https://example.com/..a/b"):
        assert is_allowed(url, site_url=SITE, allow_list=entry)


@given(
    st.text(alphabet="ab*?[]{},!-./:", max_size=12),
    st.text(alphabet="ab./:", max_size=12),
)
def test_a_glob_matches_what_its_regular_expression_does(pattern: str, text: str) -> None:
    assume("[" not in pattern and "{" not in pattern)
    expected = "".join(
        {"*": "[^./]*", "?": "[^./]"}.get(part, ".*" if part[0] == "*" else re.escape(part))
        for part in re.findall(r"\*+|.", pattern)
    )
    assert glob(pattern).matches(text) == bool(re.fullmatch(expected, text))
