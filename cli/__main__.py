"""The `butterbase` command.

Each command imports what it runs: all of it together takes a second, the web edge alone half.
"""

import argparse
import asyncio
import os
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from butterbase.cli.functions_flags import add_functions_flags
from butterbase.cli.runtime import die_with_supervisor, open_cluster, set_up_logging
from butterbase.cli.settings import FILE, PREFIX, Settings, add_flags, load_settings
from butterbase.sql.apps import FIRST_APP
from butterbase.sql.errors import ButterbaseError, SettingError

Command: TypeAlias = Callable[[Settings, Namespace], None]


def main() -> int:
    """Run the command line; an error we foresaw is one line and status 1."""
    arguments = parser().parse_args()
    set_up_logging()
    try:
        settings = load_settings(vars(arguments), os.environ, Path(FILE))
        if settings.telemetry.log_format == "json":
            set_up_logging(is_json=True)
        command: Command = arguments.run
        command(settings, arguments)
    except ButterbaseError as error:
        hint = f" ({error.hint})" if error.hint else ""
        print(f"butterbase: {error}{hint}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _up(settings: Settings, _arguments: Namespace) -> None:
    from butterbase.cli import up

    die_with_supervisor()
    up.up(settings)


def _demo(settings: Settings, arguments: Namespace) -> None:
    from butterbase.cli.demo import demo

    demo.demo(settings, url=arguments.url, owner_dsn=arguments.database_url_of_app)


def _api(settings: Settings, _arguments: Namespace) -> None:
    from butterbase.cli import api

    die_with_supervisor()
    api.serve(settings)


def _rest(settings: Settings, arguments: Namespace) -> None:
    from butterbase.cli import rest

    die_with_supervisor()
    rest.rest(settings, arguments)


def _stream(settings: Settings, _arguments: Namespace) -> None:
    from butterbase.cli import stream

    die_with_supervisor()
    stream.serve(settings)


def _functions(settings: Settings, arguments: Namespace) -> None:
    from butterbase.cli import functions

    functions.run(settings, arguments)


def _functions_serve(settings: Settings, _arguments: Namespace) -> None:
    from butterbase.cli import functions_host

    die_with_supervisor()
    functions_host.serve(settings)


def _migrate(settings: Settings, _arguments: Namespace) -> None:
    from butterbase.cli import migrate

    asyncio.run(migrate.migrate(settings))


def _keys(settings: Settings, arguments: Namespace) -> None:
    from butterbase.cli import keys

    found = asyncio.run(keys.find_keys(open_cluster(settings), settings, arguments.app))
    print(f"anon          {found.anon}\nservice_role  {found.service_role}")


def _keys_create(settings: Settings, arguments: Namespace) -> None:
    from butterbase.cli import keys

    made = asyncio.run(
        keys.create(
            open_cluster(settings),
            arguments.app,
            name=arguments.name,
            scopes=arguments.scope,
            days=arguments.days,
        )
    )
    print(made.key)
    print(
        f"id {made.id}, scopes {' '.join(made.scopes)}, until {made.expires_at}; "
        "the key is not shown again",
        file=sys.stderr,
    )


def _keys_list(settings: Settings, arguments: Namespace) -> None:
    from butterbase.cli import keys

    for key in asyncio.run(keys.listed(open_cluster(settings), arguments.app)):
        state = "revoked" if key.revoked_at else f"until {key.expires_at}"
        used = f"used {key.last_used_at}" if key.last_used_at else "never used"
        print(f"{key.id}  {key.hint}  {key.name}  {' '.join(key.scopes)}  {state}  {used}")


def _operators_create(settings: Settings, arguments: Namespace) -> None:
    from butterbase.cli import operators

    print(asyncio.run(operators.create(open_cluster(settings), arguments.email)))


def _operators_list(settings: Settings, _arguments: Namespace) -> None:
    from butterbase.cli import operators

    for operator in asyncio.run(operators.listed(open_cluster(settings))):
        seen = f"seen {operator.last_sign_in_at}" if operator.last_sign_in_at else "never seen"
        factor = "second factor" if operator.has_factor else "password alone"
        print(f"{operator.email}  since {operator.created_at}  {seen}  {factor}")


def _operators_reset(settings: Settings, arguments: Namespace) -> None:
    from butterbase.cli import operators

    print(asyncio.run(operators.reset(open_cluster(settings), arguments.email)))


def _operators_remove(settings: Settings, arguments: Namespace) -> None:
    from butterbase.cli import operators

    asyncio.run(operators.remove(open_cluster(settings), arguments.email))


def _keys_revoke(settings: Settings, arguments: Namespace) -> None:
    from butterbase.cli import keys

    asyncio.run(keys.revoke(open_cluster(settings), arguments.app, arguments.key))


def _keys_rotate(settings: Settings, _arguments: Namespace) -> None:
    from butterbase.cli import keys

    print(asyncio.run(keys.rotate(open_cluster(settings), settings)))


def _ai_plan(settings: Settings, arguments: Namespace) -> None:
    from butterbase.cli import ai

    cluster = open_cluster(settings)
    print(
        asyncio.run(ai.plan(cluster, arguments.app, to=arguments.plan, overage=arguments.overage))
    )


def _ai_budget(settings: Settings, arguments: Namespace) -> None:
    from butterbase.cli import ai

    cluster = open_cluster(settings)
    print(asyncio.run(ai.budget(cluster, usd=arguments.usd, period=arguments.period)))


def _ai_reconcile(settings: Settings, _arguments: Namespace) -> None:
    from butterbase.cli import ai

    differences = asyncio.run(ai.check(open_cluster(settings)))
    for line in differences:
        print(line)
    if differences:
        raise SettingError(f"{len(differences)} sums are not those of their events")
    print("all sums are those of their events")


def _db_url(settings: Settings, arguments: Namespace) -> None:
    from butterbase.cli import db

    print(asyncio.run(db.database_url(open_cluster(settings), arguments.app)))


def _db_push(settings: Settings, arguments: Namespace) -> None:
    from butterbase.cli import db

    applied = asyncio.run(db.push(open_cluster(settings), arguments.app, Path(arguments.folder)))
    for name in applied:
        print(f"applied {name}")
    if not applied:
        print("nothing to apply")


def _projections_rebuild(settings: Settings, arguments: Namespace) -> None:
    from butterbase.cli import projections

    rebuilt = projections.rebuild(open_cluster(settings), arguments.name, arguments.app)
    print(f"{arguments.name} of {asyncio.run(rebuilt)} is rebuilt")


COMMANDS: dict[str, tuple[str, Command]] = {
    "up": ("start everything on this machine", _up),
    "demo": (
        "run the main job end to end, on what runs here or on its own",
        _demo,
    ),
    "api": ("run the api process alone", _api),
    "stream": ("run the stream process alone: the log's reader, realtime, projections", _stream),
    "keys": ("print an app's anon and service_role keys; make and revoke others", _keys),
    "migrate": ("bring the control database and the app main up to date", _migrate),
}
DB_COMMANDS: dict[str, tuple[str, Command]] = {
    "url": ("print the DSN of the app's owner role", _db_url),
    "push": ("apply the SQL migrations of a folder, in order", _db_push),
}

AI_COMMANDS: dict[str, tuple[str, Command]] = {
    "plan": ("print the plan of an app, or give it another", _ai_plan),
    "budget": ("set what all apps together may spend on models", _ai_budget),
    "reconcile": ("check that all sums are those of the events, to the nano-dollar", _ai_reconcile),
}

KEYS_COMMANDS: dict[str, tuple[str, Command]] = {
    "create": ("make an app key, and print it this once", _keys_create),
    "list": ("list the app keys that were made", _keys_list),
    "revoke": ("revoke an app key, and those it made", _keys_revoke),
    "rotate": ("seal all stored secrets, of all apps, with a new key", _keys_rotate),
}


PROJECTIONS_COMMANDS: dict[str, tuple[str, Command]] = {
    "rebuild": ("make the rows anew out of their source, while all goes on", _projections_rebuild),
}

FUNCTIONS_COMMANDS: dict[str, tuple[str, Command]] = {
    "deploy": ("deploy a function, or the next version of one", _functions),
    "check": ("check the types of a function, before it is deployed", _functions),
    "types": ("write down the types of what functions are given, for editors", _functions),
    "list": ("list an app's functions", _functions),
    "logs": ("print what a function logs", _functions),
    "rollback": ("go back to an earlier version of a function", _functions),
    "delete": ("take a function away, with all its versions", _functions),
    "serve": ("run the process that runs functions, one a machine", _functions_serve),
}

OPERATORS_COMMANDS: dict[str, tuple[str, Command]] = {
    "create": ("make an operator, and print a password this once", _operators_create),
    "list": ("list the operators", _operators_list),
    "reset": ("give an operator a new password, and print it this once", _operators_reset),
    "remove": ("take an operator's access away", _operators_remove),
}


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="butterbase", description="A self-hosted backend for AI applications, on Postgres."
    )
    commands = root.add_subparsers(required=True, metavar="COMMAND")
    made = _add(commands, COMMANDS)
    demo = made["demo"]
    demo.add_argument("--url", help="run against the instance there; its keys are settings")
    demo.add_argument("--database-url-of-app", metavar="DSN", help="its app's, as the owner role")
    database = commands.add_parser("db", help="an app's database", description="An app's database.")
    of_database = _add(database.add_subparsers(required=True, metavar="ACTION"), DB_COMMANDS)
    for command in (made["keys"], *of_database.values()):
        command.add_argument("--app", default=FIRST_APP, help="the app's id (default %(default)s)")
    of_database["push"].add_argument("folder", metavar="DIR", help="folder of *.sql files")
    _add_keys(made["keys"])
    _add_ai(commands)
    text = "those who run the platform: they sign in to the dashboard, and may do everything"
    operators = commands.add_parser("operators", help=text, description=f"Operators: {text}.")
    of_operators = _add(
        operators.add_subparsers(required=True, metavar="ACTION"), OPERATORS_COMMANDS
    )
    for name in ("create", "reset", "remove"):
        of_operators[name].add_argument("email", metavar="EMAIL", help="the operator's address")
    _add_functions(commands)
    _add_projections(commands)
    _add_rest(commands)
    return root


def _add_functions(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "functions: deployed, read along with, run"
    group = commands.add_parser("functions", help=text, description=f"Functions: {text[11:]}.")
    actions = group.add_subparsers(required=True, metavar="ACTION", dest="action")
    add_functions_flags(_add(actions, FUNCTIONS_COMMANDS))


def _add_ai(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "plans and budgets of the AI gateway"
    ai = commands.add_parser("ai", help=text, description=f"{text[0].upper()}{text[1:]}.")
    actions = _add(ai.add_subparsers(required=True, metavar="ACTION"), AI_COMMANDS)
    plan, budget = actions["plan"], actions["budget"]
    plan.add_argument("--app", default=FIRST_APP, help="the app's id (default %(default)s)")
    plan.add_argument("plan", nargs="?", metavar="PLAN", help="free, pro or enterprise")
    plan.add_argument(
        "--overage",
        default="0",
        metavar="CREDITS",
        help="credits of 0.10 USD that pro may use beyond its month, or any (default %(default)s)",
    )
    budget.add_argument("usd", metavar="USD", help="the amount, or none for no limit")
    budget.add_argument(
        "--period",
        choices=("day", "month", "lifetime"),
        default="month",
        help="of which this is the limit (default %(default)s)",
    )


def _add_projections(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "tables that follow from the log: usage, embeddings"
    group = commands.add_parser("projections", help=text, description=f"Projections: {text}.")
    made = _add(group.add_subparsers(required=True, metavar="ACTION"), PROJECTIONS_COMMANDS)
    rebuild = made["rebuild"]
    rebuild.add_argument("name", metavar="NAME", choices=("usage", "embeddings"), help=text)
    rebuild.add_argument("--app", default=FIRST_APP, help="the app's id (default %(default)s)")


def _add_keys(keys: argparse.ArgumentParser) -> None:
    """Without an action it prints the app's own keys."""
    actions = _add(keys.add_subparsers(metavar="ACTION"), KEYS_COMMANDS)
    for action in actions.values():
        # Its own default would replace what stands before the action.
        action.add_argument("--app", default=argparse.SUPPRESS, help="the app's id")
    create = actions["create"]
    create.add_argument("name", metavar="NAME", help="what the key is for")
    create.add_argument(
        "--scope",
        action="append",
        required=True,
        help="what it may be used for: data, ai, functions or admin; again for more",
    )
    create.add_argument(
        "--days", type=int, default=90, help="how long it is good (default %(default)s)"
    )
    actions["revoke"].add_argument("key", metavar="ID", help="the id that `list` prints")


def _add_rest(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """It has PostgREST's settings, and of ours those of a worker."""
    text = "serve a database of your own in PostgREST's place, by its configuration"
    rest = commands.add_parser(
        "rest",
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog="PostgREST's settings are taken from its PGRST_… variables, else from FILE.",
    )
    rest.set_defaults(run=_rest)
    rest.add_argument("file", nargs="?", metavar="FILE", help="PostgREST's configuration file")
    what = rest.add_mutually_exclusive_group()
    what.add_argument("--dump-config", action="store_true", help="print the settings and end")
    what.add_argument("--example", action="store_true", help="print a configuration file and end")
    what.add_argument(
        "--ready", action="store_true", help="ask the admin server whether all is ready, and end"
    )
    add_flags(rest, only={"workers", "body_bytes_max"})


def _add(
    group: "argparse._SubParsersAction[argparse.ArgumentParser]",
    commands: dict[str, tuple[str, Command]],
) -> dict[str, argparse.ArgumentParser]:
    made = {}
    for name, (text, run) in commands.items():
        made[name] = group.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=f"A setting is taken from its flag, else from its {PREFIX}… variable, "
            f"else from {FILE} in the working directory.",
        )
        made[name].set_defaults(run=run)
        add_flags(made[name])
    return made


if __name__ == "__main__":
    sys.exit(main())
