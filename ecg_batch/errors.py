"""The one exception a user is meant to read: what came, what was needed, why, what to do next."""


class UserError(Exception):
    """Something the user can mend. Jobs print its text without a traceback and exit with 2."""
