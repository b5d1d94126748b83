"""A process that reads an app's log and works on its indexes, to be killed. The model costs nothing
but takes its time, so that a kill may hit it.
"""

import asyncio
import os
import sys

from butterbase.ingest.rereading import Log
from butterbase.projections.embeddings import Embeddings
from butterbase.projections.indexes.indexer import Indexer
from butterbase.projections.runner import ProjectionRunner
from tests.projections.following import reading
from tests.projections.indexing import FAST, Model, estimated


async def main(dsn: str, owner_dsn: str, slot: str, publication: str) -> None:
    model = Model()
    model.before = lambda texts: asyncio.sleep(0.001 * len(texts))
    indexer = Indexer(model, estimated, dsn=dsn, owner_dsn=owner_dsn, limits=FAST)
    log = Log(dsn, slot, (publication,))
    async with reading(log, ProjectionRunner(Embeddings(), log, on_applied=indexer.wake)):
        await indexer.run()


if __name__ == "__main__":
    arguments = sys.argv[1:]
    asyncio.run(main(os.environ["DSN"], os.environ["OWNER_DSN"], arguments[0], arguments[1]))
