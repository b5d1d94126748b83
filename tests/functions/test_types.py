"""The types that functions are written against name what there is, and nothing else."""

import re

from butterbase.cli.functions_deno import types_text
from tests.functions.calling import call, json_of, running

NAMES = """
const of = (thing) => Object.keys(Object.getOwnPropertyDescriptors(thing));
const query = ctx.db.from("t"), bucket = ctx.storage.from("b");
return Response.json({
  Context: of(ctx), Db: of(ctx.db), Ai: of(ctx.ai), Storage: of(ctx.storage), Bucket: of(bucket),
  Query: of(Object.getPrototypeOf(query)), app: of(ctx.app), function: of(ctx.function),
  request: of(ctx.request), log: of(ctx.log), queue: of(ctx.queue),
  idempotency: of(ctx.idempotency),
});
"""


def members(text: str, indent: str = "  ") -> set[str]:
    return set(re.findall(rf"^{indent}(?:readonly )?(\w+)\??[<(:]", text, re.MULTILINE))


def interface(name: str) -> str:
    found = re.search(rf"^export interface {name}\b.*?^}}", types_text(), re.MULTILINE | re.DOTALL)
    assert found is not None, name
    return found[0]


def nested(outer: str, name: str) -> set[str]:
    text = re.search(rf"^  (?:readonly )?{name}\b.*?^  }}", interface(outer), re.M | re.DOTALL)
    assert text is not None, name
    return members(text[0], " {4}") or set(re.findall(r"(\w+): ", text[0].partition("{")[2]))


async def test_types_and_context_have_the_same_members() -> None:
    async with running() as runtime:
        there = {name: set(found) for name, found in json_of(await call(runtime, NAMES)).items()}
    for name in ("Context", "Db", "Ai", "Storage"):
        assert members(interface(name)) == there[name]
    for name in ("request", "queue", "idempotency"):
        assert nested("Context", name) == there[name]
    assert nested("Storage", "from") == there["Bucket"]
    for name in ("app", "function", "log"):
        line = re.search(rf"^  readonly {name}: (.*)", interface("Context"), re.MULTILINE)
        assert line is not None
        assert set(re.findall(r'readonly (\w+):|"(\w+)"', line[1])) == {
            ("", n) if name == "log" else (n, "") for n in there[name]
        }
    begins = members(interface("Table"))
    assert begins <= there["Query"]
    # What follows a beginning; `call` is `rpc`, and `then` is a promise's.
    goes_on = there["Query"] - (begins - {"select"}) - {"constructor", "then", "call"}
    assert members(interface("Query")) == goes_on
