"""The trail of what was done to whom, a row for each event, in the transaction of what it tells."""

from collections.abc import Mapping
from typing import Literal, TypeAlias

import msgspec

from butterbase.api.auth.caller import Caller
from butterbase.sql.catalog import load_queries
from butterbase.sql.pipeline import Statement

QUERIES = load_queries("auth_audit")

LogType: TypeAlias = Literal["account", "team", "token", "user", "factor"]

ACTIONS: dict[str, LogType] = {
    "login": "account",
    "logout": "account",
    "invite_accepted": "account",
    "user_signedup": "team",
    "user_invited": "team",
    "user_deleted": "team",
    "token_refreshed": "token",
    "token_revoked": "token",
    "token_reused": "token",
    "user_modified": "user",
    "user_banned": "user",
    "user_repeated_signup": "user",
    "user_updated_password": "user",
    "user_recovery_requested": "user",
    "user_confirmation_requested": "user",
    "user_reauthenticate_requested": "user",
    "identity_linked": "user",
    "identity_unlinked": "user",
    "factor_in_progress": "factor",
    "factor_unenrolled": "factor",
    "factor_deleted": "factor",
    "factor_updated": "factor",
    "challenge_created": "factor",
    "verification_attempted": "factor",
    "settings_changed": "team",
}


def entry(
    action: str,
    *,
    user_id: str | None,
    caller: Caller,
    traits: Mapping[str, object] | None = None,
) -> Statement:
    """A line of the trail, to be run in the transaction of what it tells of.

    `user_id` is whose account it is about; None for the app's own settings.
    """
    return Statement.of(
        QUERIES["write_audit"],
        action,
        ACTIONS[action],
        user_id,
        caller.now_s,
        caller.ip,
        msgspec.json.encode(traits) if traits else None,
    )
