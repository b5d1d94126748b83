"""The auth of operators: an app's, with the control database in the place of the app's own.

They run the platform, so nobody becomes one by signing up: `butterbase operators` makes them, and
so do other operators.
"""

from datetime import UTC, datetime

from butterbase.api.apps import AppRuntime, Apps, rest_settings
from butterbase.api.auth.app_auth import app_auth
from butterbase.api.auth.keys import app_keys
from butterbase.api.auth.tokens import Tokens
from butterbase.api.keys.keyring import Keyring
from butterbase.api.settings import ApiSettings
from butterbase.sql.cluster import Cluster, LoginRole
from butterbase.sql.pipeline import Executor

ID = "@operators"
"""No app's id, so no app's keys."""

PREFIX = "/operators"

# Periods of signing keys are counted from here.
_BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)

_LIFE_S = 900
"""Of an access token, at most."""

_CLOSED = {
    "is_signup_enabled": False,
    "is_anonymous_enabled": False,
    "is_otp_signup_enabled": False,
}


def operators_service(cluster: Cluster) -> Executor:
    dsn = cluster.dsn(LoginRole.OPERATORS, cluster.control_database)
    return Executor(dsn, connection_count_max=2)


def operators_runtime(cluster: Cluster, settings: ApiSettings, apps: Apps) -> AppRuntime:
    """It has no data to serve: what it is asked for is below `PREFIX`/auth/v1."""
    url, service = f"{settings.url}{PREFIX}/auth/v1", operators_service(cluster)
    keys = app_keys(cluster.master_key, ID, _BEGINNING, issuer=url)
    auth = app_auth(
        ID,
        url=url,
        master_key=cluster.master_key,
        tokens=Tokens(keys),
        service=service,
        web=apps.web,
        jwt_expiry_s=min(_LIFE_S, settings.jwt_expiry_s),
        fixed=_CLOSED,
    )
    return AppRuntime(
        ID,
        auth=auth,
        keyring=Keyring(apps.control, ID),
        data=service,
        service=service,
        rest_settings=rest_settings(settings),
    )
