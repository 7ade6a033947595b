"""The one exception a user is meant to read: what came, what was needed, why, what to do next."""


class UserError(Exception):
    """Something the user can mend. Jobs print its text without a traceback and exit with 2."""


def need(extra: str, *modules: str) -> None:
    """UserError where a package of an optional extra is not installed."""
    from importlib.util import find_spec

    if absent := [name for name in modules if find_spec(name) is None]:
        raise UserError(f"{', '.join(absent)} not installed; this command needs the extra '{extra}': pip install -e '.[{extra}]'")
