from butterbase.api.rest import options
from butterbase.api.rest.request.incoming import Target
from butterbase.sql.relations.model import SchemaCache, Table


def test_methods_are_all_that_is_said() -> None:
    cache = SchemaCache(tables={("api", "t"): Table("api", "t", {}, is_insertable=True)})
    answer = options.answer(cache, "api", Target("t"), "")
    # Which origins may read it the endpoint says, of this answer as of all others.
    assert [name for name, _ in answer.headers] == [b"allow"]
    assert answer.status == 200
