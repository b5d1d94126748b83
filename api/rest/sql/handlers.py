"""What makes an answer's body of its rows."""

from enum import Enum, auto
from typing import TypeAlias

from butterbase.sql.relations.model import MediaHandler


class Builtin(Enum):
    """What we make of rows ourselves."""

    JSON = auto()
    JSON_WITHOUT_NULLS = auto()
    OBJECT = auto()
    OBJECT_WITHOUT_NULLS = auto()
    CSV = auto()
    GEOJSON = auto()
    NOTHING = auto()
    """The answer has no body."""


Handler: TypeAlias = Builtin | MediaHandler
