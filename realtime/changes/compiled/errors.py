"""How a compiled policy says that Postgres must be asked. Neither leaves `realtime/`."""


class UncompilableError(Exception):
    """An expression is outside of what we evaluate: its policies are always asked of Postgres."""


class UnanswerableError(Exception):
    """One value is outside of what we read, or an error in Postgres: for it Postgres is asked."""
