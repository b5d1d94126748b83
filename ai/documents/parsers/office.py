"""What Word, PowerPoint and Excel say of a file in the same way: ECMA-376-2, 11."""

from typing import Any

from butterbase.ai.documents.blocks import PROPERTY_CHARS_MAX

_PROPERTIES = {
    "author": "author",
    "creator": "author",
    "subject": "subject",
    "keywords": "keywords",
    "language": "language",
}


def properties_of(core: Any) -> dict[str, Any]:
    """`title` and `properties`, from python-docx's, python-pptx's or openpyxl's core properties."""
    found: dict[str, str] = {}
    for attribute, name in _PROPERTIES.items():
        value = getattr(core, attribute, None)
        if isinstance(value, str) and value.strip():
            found.setdefault(name, value.strip()[:PROPERTY_CHARS_MAX])
    return {"title": (core.title or "").strip()[:PROPERTY_CHARS_MAX], "properties": found}
