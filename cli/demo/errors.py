"""What the demo raises."""

from butterbase.sql.errors import ButterbaseError


class DemoError(ButterbaseError):
    """A step of the demo does not hold."""

    code = "demo_failed"
