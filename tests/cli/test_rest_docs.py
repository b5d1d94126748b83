"""What the documentation of PostgREST mode says of settings that do nothing."""

import re
from pathlib import Path

from butterbase.api.rest.postgrest.config import FIELDS
from butterbase.cli.rest import WITHOUT_EFFECT

DOCUMENT = Path(__file__).parents[2] / "docs" / "postgrest-mode.md"


def rows() -> list[tuple[list[str], str]]:
    """Names, and what is said of them."""
    table = re.findall(r"^\| (`.*?) \| (.*) \|$", DOCUMENT.read_text(), re.MULTILINE)
    return [(re.findall("`([a-z0-9.*-]+)`", names), said) for names, said in table]


def test_settings_without_effect_are_those_that_the_log_names() -> None:
    idle = {n for names, said in rows() if "without effect" in said for n in names}
    assert idle == {name.replace("_", "-") for name in WITHOUT_EFFECT}


def test_every_setting_is_documented() -> None:
    assert FIELDS.keys() <= {name for names, _ in rows() for name in names}
