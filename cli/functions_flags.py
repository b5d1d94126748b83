"""The flags of `butterbase functions …`."""

import argparse
from collections.abc import Mapping

from butterbase.sql.apps import FIRST_APP


def add_functions_flags(made: Mapping[str, argparse.ArgumentParser]) -> None:
    """Beside the settings; `made` are the parsers by their actions."""
    for name in ("deploy", "list", "logs", "rollback", "delete"):
        action = made[name]
        action.add_argument("--app", default=FIRST_APP, help="the app's id (default %(default)s)")
        action.add_argument("--url", help="of the api; default where the settings say that it is")
        action.add_argument(
            "--key",
            help="its service_role key, or one with the scope functions, where --url is another's",
        )
        if name != "list":
            action.add_argument("function", metavar="NAME", help="the function's name")
    made["check"].add_argument("function", metavar="NAME", help="the function's name")
    for name in ("deploy", "check"):
        made[name].add_argument(
            "path",
            nargs="?",
            metavar="PATH",
            help="its file or directory; default functions/NAME, functions/NAME.ts or the same"
            " below supabase/. A function.json in the directory says the rest",
        )
    made["types"].add_argument(
        "directory",
        nargs="?",
        default="functions",
        metavar="DIRECTORY",
        help="where functions are written (default %(default)s)",
    )
    _add_deploy_flags(made["deploy"])
    made["logs"].add_argument("--follow", action="store_true", help="go on with what is to come")
    made["logs"].add_argument(
        "--limit", type=int, default=100, help="how many of the last lines (default %(default)s)"
    )
    made["rollback"].add_argument(
        "--version", type=int, help="which one; default the one before the active one"
    )


def _add_deploy_flags(deploy: argparse.ArgumentParser) -> None:
    deploy.add_argument(
        "--allow-net",
        action="append",
        metavar="HOST[,HOST…]",
        help="hosts that it may ask: api.openai.com, *.example.com, 203.0.113.7:8443",
    )
    deploy.add_argument(
        "--allow-service",
        action="store_true",
        default=None,
        help="let its own token read and write all data, past row-level security",
    )
    deploy.add_argument(
        "--env", action="append", metavar="NAME=VALUE", help="a variable; NAME= removes it"
    )
    deploy.add_argument("--env-file", metavar="FILE", help="variables, a line each")
    deploy.add_argument(
        "--verify-jwt",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="whether callers need a key or token",
    )
    deploy.add_argument("--timeout-ms", type=int, help="how long a call may take")
    deploy.add_argument("--memory-mb", type=int, help="how much memory it may use")
    deploy.add_argument(
        "--trigger",
        action="append",
        metavar="JSON",
        help="what else invokes it, as in the API; those that are not said are removed",
    )
    deploy.add_argument(
        "--bundle",
        action="store_true",
        help="let `deno bundle` fetch what it imports from npm:, jsr: and https:, here",
    )
    deploy.add_argument(
        "--check",
        action="store_true",
        help="deploy only what `deno check` finds no fault with, here",
    )
