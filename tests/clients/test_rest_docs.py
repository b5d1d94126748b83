"""The commands of docs/rest.md, run by a shell as they are written."""

import json
import re
import subprocess
from pathlib import Path

from tests.clients.library import Library

PAGE = Path(__file__).parents[2] / "docs/rest.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def test_documents_are_matched_by_their_embeddings(library: Library) -> None:
    ((_, schema),) = [block for block in BLOCKS if block[0] == "sql"]
    ((_, command),) = [block for block in BLOCKS if block[0] == "sh"]
    library.installation.as_owner(schema)
    try:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            env={"URL": library.url, "ANON_KEY": library.keys.anon},
            capture_output=True,
            text=True,
            timeout=30,
        )
    finally:
        library.installation.as_owner("drop function match_documents; drop table documents")
    assert done.returncode == 0, done.stderr
    assert [row["content"] for row in json.loads(done.stdout)] == ["a cat", "a dog"]
    assert json.loads(done.stdout)[0]["similarity"] == 1
