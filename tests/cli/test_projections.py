import pytest

from butterbase.cli import projections
from butterbase.cli.__main__ import parser
from butterbase.sql.errors import SettingError
from tests.installation import Installation


@pytest.mark.parametrize("name", projections.NAMES)
async def test_every_projection_that_is_named_can_be_rebuilt(
    installation: Installation, name: str
) -> None:
    arguments = parser().parse_args(["projections", "rebuild", name])
    database = await projections.rebuild(installation.cluster, arguments.name, arguments.app)
    assert database in (installation.control.name, installation.main.name)


async def test_the_app_must_be_there(installation: Installation) -> None:
    with pytest.raises(SettingError):
        await projections.rebuild(installation.cluster, "embeddings", "nobody")
