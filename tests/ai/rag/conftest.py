from collections.abc import Iterator

import pytest

from tests.ai.rag.published import Published, published
from tests.installation import Installation


@pytest.fixture
def passages(installation: Installation) -> Iterator[Published]:
    with published(installation) as passages:
        yield passages
