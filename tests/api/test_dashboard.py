import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import falcon
import pytest
from falcon.asgi import App
from falcon.testing import Result, TestClient

from butterbase.api import problems
from butterbase.api.apps import Apps
from butterbase.api.callers import RequestIds
from butterbase.api.dashboard import resource
from butterbase.api.dashboard.resource import add_routes
from butterbase.api.middleware import CallerMiddleware
from butterbase.api.settings import ApiSettings
from butterbase.sql.cluster import Cluster
from butterbase.sql.secrets import MasterKey

FILES = {path.name: path for path in Path(resource.__file__).parent.iterdir() if path.is_file()}
SCRIPTS = [name for name in FILES if name.endswith(".js")]
SERVED = sorted(name for name in FILES if not name.endswith(".py"))

CONTROLS = {"input", "select", "textarea"}


class Page(HTMLParser):
    """The page's elements in order, as (name, attributes), and the text inside of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inline = ""
        self.labelled: set[str] = set()
        """Ids of the controls that stand inside of a label."""
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        if tag in {"script", "style", "label"}:
            self._open.append(tag)
        if tag in CONTROLS and "label" in self._open:
            self.labelled.add(attributes["id"] or "")

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open:
            self._open.remove(tag)

    def handle_data(self, data: str) -> None:
        if {"script", "style"} & set(self._open):
            self.inline += data

    def values(self, attribute: str) -> list[str]:
        return [value for _, attrs in self.elements if (value := attrs.get(attribute))]


@pytest.fixture
def client() -> TestClient:
    """The routes behind the middleware that asks for keys, with a database that is away."""
    apps = Apps(Cluster("host=127.0.0.1 port=1", MasterKey(bytes(32))), ApiSettings())
    app: App[Any, Any] = App(middleware=[CallerMiddleware(apps, RequestIds())])
    problems.add_handlers(app)
    add_routes(app)
    return TestClient(app)


@pytest.fixture
def page() -> Page:
    return Page(FILES["index.html"].read_text())


def get(client: TestClient, path: str, **headers: str) -> Result:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.simulate_get(path, headers=named)


def policy(answer: Result) -> dict[str, str]:
    parts = (part.strip() for part in answer.headers["content-security-policy"].split(";"))
    return {name: sources for name, _, sources in (part.partition(" ") for part in parts)}


@pytest.mark.parametrize("path", ["/dashboard", "/dashboard/"])
def test_the_page_needs_neither_key_nor_database(client: TestClient, path: str) -> None:
    answer = get(client, path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "<title>Butterbase</title>" in answer.text


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("dashboard.js", "text/javascript; charset=utf-8"),
        ("dashboard.css", "text/css; charset=utf-8"),
        ("icon.svg", "image/svg+xml"),
    ],
)
def test_a_file_has_its_media_type(client: TestClient, name: str, media_type: str) -> None:
    answer = get(client, f"/dashboard/{name}")
    assert answer.headers["content-type"] == media_type
    assert answer.content == FILES[name].read_bytes()


@pytest.mark.parametrize("path", ["/dashboard", *(f"/dashboard/{name}" for name in SERVED)])
def test_nothing_may_run_or_frame_the_page_but_its_own_files(client: TestClient, path: str) -> None:
    answer = get(client, path)
    allowed = policy(answer)
    assert allowed["default-src"] == "'none'"
    assert allowed["script-src"] == allowed["style-src"] == allowed["connect-src"] == "'self'"
    assert allowed["frame-ancestors"] == allowed["base-uri"] == allowed["form-action"] == "'none'"
    assert allowed["require-trusted-types-for"] == "'script'"
    assert allowed["trusted-types"] == "'none'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("path", ["/dashboard", "/dashboard/dashboard.js"])
def test_a_known_file_is_answered_304_without_a_body(client: TestClient, path: str) -> None:
    first = get(client, path)
    assert first.headers["cache-control"] == "no-cache"
    again = get(client, path, If_None_Match=f'"other", W/{first.headers["etag"]}')
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert again.headers["content-security-policy"] == first.headers["content-security-policy"]
    assert get(client, path, If_None_Match='"other"').status_code == 200


def test_files_differ_in_their_etags(client: TestClient) -> None:
    etags = {get(client, f"/dashboard/{name}").headers["etag"] for name in SERVED}
    assert len(etags) == len(SERVED)


@pytest.mark.parametrize("name", ["resource.py", "..%2fapp.py", "..", "no-such.js"])
def test_nothing_but_the_pages_files_is_served(client: TestClient, name: str) -> None:
    answer = get(client, f"/dashboard/{name}")
    assert (answer.status_code, answer.json["code"]) == (404, "not_found")


def test_head_answers_as_get_without_the_body(client: TestClient) -> None:
    answer = client.simulate_head("/dashboard")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["etag"] == get(client, "/dashboard").headers["etag"]


def test_what_the_page_refers_to_is_served(client: TestClient, page: Page) -> None:
    references = page.values("src") + page.values("href")
    assert "/dashboard/dashboard.js" in references
    for reference in references:
        assert get(client, reference).status_code == 200, reference


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_a_script_imports_is_served(client: TestClient, name: str) -> None:
    for imported in re.findall(r'from "\./([^"]+)"', FILES[name].read_text()):
        assert get(client, f"/dashboard/{imported}").status_code == 200, imported


def test_every_script_is_reached_from_the_page() -> None:
    reached: set[str] = set()
    found = {"dashboard.js"}
    while found - reached:
        name = (found - reached).pop()
        reached.add(name)
        found |= set(re.findall(r'from "\./([^"]+)"', FILES[name].read_text()))
    assert reached == set(SCRIPTS)


def test_the_page_has_no_inline_script_style_or_handler(page: Page) -> None:
    assert not page.inline.strip()
    for tag, attributes in page.elements:
        assert tag != "style"
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
    assert not [value for value in page.values("href") if not value.startswith("/dashboard/")]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_turns_no_text_into_markup_or_code(name: str) -> None:
    text = FILES[name].read_text()
    sinks = r"innerHTML|outerHTML|insertAdjacentHTML|HTMLUnsafe|document\.write|srcdoc"
    sinks += r"|createContextualFragment|DOMParser|\beval\b|\bFunction\b|\.on[a-z]+ *=|localStorage"
    assert not re.findall(sinks, text)


@pytest.mark.parametrize("name", SCRIPTS)
def test_ids_in_a_script_are_ids_of_the_page(page: Page, name: str) -> None:
    calls = r'(?:byId|setText|setRows|setTotals)\(\s*"([^"]+)"'
    assert set(re.findall(calls, FILES[name].read_text())) <= set(page.values("id"))


def test_ids_and_what_refers_to_them_agree(page: Page) -> None:
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    for attribute in ("for", "aria-labelledby", "aria-describedby"):
        assert set(page.values(attribute)) <= set(ids), attribute


def test_every_control_has_a_label(page: Page) -> None:
    labelled = set(page.values("for")) | page.labelled
    controls = [attributes for tag, attributes in page.elements if tag in CONTROLS]
    assert controls
    for attributes in controls:
        assert attributes["id"] in labelled or attributes.get("aria-label"), attributes["id"]


@pytest.mark.parametrize(
    "accept", ["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html"]
)
def test_the_root_sends_a_browser_to_the_dashboard(client: TestClient, accept: str) -> None:
    answer = get(client, "/", Accept=accept)
    assert (answer.status_code, answer.headers["location"]) == (302, "/dashboard")
    assert answer.headers["vary"] == "Accept"


@pytest.mark.parametrize("accept", ["*/*", "application/json", "image/png", "not a type"])
def test_the_root_tells_a_program_what_this_is(client: TestClient, accept: str) -> None:
    answer = get(client, "/", Accept=accept)
    assert (answer.status_code, answer.headers["content-type"]) == (200, falcon.MEDIA_JSON)
    assert answer.json["name"] == "butterbase"
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", answer.json["version"])
    assert get(client, answer.json["links"]["dashboard"]).status_code == 200
