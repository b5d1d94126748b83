"""What is refused to operators."""

from butterbase.sql.errors import ButterbaseError


class OperatorFactorError(ButterbaseError):
    """This operator has a second factor, which the session has not seen."""

    code = "operator_factor_required"
