"""Named statements: `sql/queries/<caller>.sql`, each below a line `-- name: …`."""

import re
from importlib.resources import files

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def load_queries(caller: str) -> dict[str, bytes]:
    """The caller's statements by name, with `$1` parameters, for the pipeline executor."""
    text = files("butterbase.sql").joinpath(f"queries/{caller}.sql").read_text(encoding="utf-8")
    _, *parts = _NAME.split(text)
    return {
        name: body.strip().rstrip(";").encode()
        for name, body in zip(parts[::2], parts[1::2], strict=True)
    }
