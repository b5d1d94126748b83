"""What the bundler makes runs in the process that it is made for."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from butterbase.api.functions import confined
from butterbase.api.functions.bundler import Bundle, Bundler
from butterbase.api.functions.runtime.jail import landlock
from tests.functions.calling import call, json_of, request, running, thrown_by, version_of

FORMS = {
    "a function": "export default async function handler() { return Response.json([1]) }",
    "an arrow": "export default () => Response.json([1])",
    "an object": "export default { fetch: () => Response.json([1]) }",
    "Deno.serve": "Deno.serve(() => Response.json([1]))",
    "Deno.serve with options": "Deno.serve({ port: 8000 }, () => Response.json([1]))",
    "a CommonJS module": "module.exports = () => Response.json([1])",
    "top-level await": "const n = await 1\nexport default () => Response.json([n])",
    "a node module": "import { Buffer } from 'node:buffer'\n"
    "export default () => Response.json([Buffer.from([1])[0]])",
    "imported types": "import { type Claims, Context } from 'butterbase'\n"
    "export default (_: Request, c: Context) => Response.json([1, c.user as Claims].slice(0, 1))",
    "an enum": "enum N { ONE = 1 }\nexport default () => Response.json([N.ONE])",
}


async def bundled(**files: str) -> Bundle:
    named = {name.replace("__", "/") + ".ts": text for name, text in files.items()}
    return await Bundler().bundle(named, "index.ts")


@pytest.mark.parametrize("form", FORMS)
async def test_every_form_of_a_handler_is_run(form: str) -> None:
    bundle = await bundled(index=FORMS[form])
    async with running() as runtime:
        assert json_of(await call(runtime, version_of(bundle.script.encode()))) == [1]


@pytest.mark.parametrize("before", ["", "await 0;"])
async def test_a_stack_names_lines_of_the_files_that_were_deployed(before: str) -> None:
    bundle = await bundled(
        index=f"{before}import {{ fail }} from './lib/fail.ts';\nexport default () => fail(1);",
        lib__fail="\n\nexport function fail(n: number): never {\n  throw new Error('no ' + n);\n}",
    )
    version = version_of(bundle.script.encode(), source_map=bundle.source_map.encode())
    async with running() as runtime:
        completed = await call(runtime, version, request())
    assert thrown_by(completed) == "Error: no 1"
    failure = completed.outcome.failure
    assert failure is not None
    assert "lib/fail.ts:4:9" in (failure.stack or "")
    assert "index.ts:2:" in (failure.stack or "")


COMMENTS = ("//# sourceMappingURL=%s", "//@ sourceMappingURL=%s", "/*# sourceMappingURL=%s */")


@pytest.mark.parametrize("comment", COMMENTS)
async def test_a_comment_makes_the_bundler_open_no_file_of_the_server(
    comment: str, tmp_path: Path
) -> None:
    source_map = tmp_path / "other.js.map"
    source_map.write_text(
        json.dumps(
            {
                "version": 3,
                "sources": ["a.ts"],
                "sourcesContent": ["secret"],
                "names": [],
                "mappings": "AAAA",
            }
        )
    )
    key = tmp_path / "master.key"
    key.write_text("secret")
    for path in (source_map, key):
        bundle = await bundled(index=f"{FORMS['an arrow']};\n{comment % path}\n")
        assert "secret" not in bundle.source_map


async def test_such_a_comment_in_a_string_is_the_same_text() -> None:
    text = "//# sourceMappingURL=x"
    bundle = await bundled(index=f"export default () => Response.json('{text}')")
    async with running() as runtime:
        assert json_of(await call(runtime, version_of(bundle.script.encode()))) == text


@pytest.mark.skipif(not landlock.version(), reason="the kernel has no Landlock")
def test_a_program_that_is_confined_opens_files_of_its_directory_alone(tmp_path: Path) -> None:
    own, other = tmp_path / "own", tmp_path / "other.txt"
    own.mkdir()
    (own / "mine.txt").write_text("mine")
    other.write_text("theirs")
    command = [sys.executable, "-P", "-m", confined.__name__, str(own), "/bin/cat"]
    env = {"PYTHONPATH": os.pathsep.join(sys.path)}

    def read(path: Path) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([*command, str(path)], env=env, capture_output=True, timeout=30)

    assert read(own / "mine.txt").stdout == b"mine"
    refused = read(other)
    assert (refused.stdout, refused.returncode) == (b"", 1)
    assert b"Permission denied" in refused.stderr
