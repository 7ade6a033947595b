"""pyarrow without pandas, which it imports at its first conversion where it is installed, only to know its types: 0.25 s."""

import sys


class _NoPandas:
    """A finder for sys.meta_path to which pandas is not installed."""

    def find_spec(self, name: str, path=None, target=None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)


def leave_pandas_out() -> None:
    """For processes that are this program's own: nobody hands pyarrow any of pandas there. to_pandas() still finds it later."""
    import pyarrow as pa

    if "pandas" not in sys.modules:
        sys.meta_path.insert(0, nobody := _NoPandas())
        try:
            pa.array([])  # looks for pandas, and remembers that there is none
        finally:
            sys.meta_path.remove(nobody)
