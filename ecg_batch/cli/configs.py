"""Copy the example requests and the example cluster file into a folder, to be changed there.

The JSON schemas beside them are for editors, which complete and check keys by the first line of each file.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from ecg_batch.errors import UserError

EXAMPLES = """examples:
  ecg-batch configs                   into ./configs
  ecg-batch configs my-requests

next: ecg-batch synthesize configs/demo.yaml --out runs/demo
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, nargs="?", default=Path("configs"), metavar="DIR", help="default: ./configs; no file "
                        "in it is overwritten")  # fmt: skip


def run(arguments: Namespace) -> int:
    folder, files = arguments.folder, example_files()
    if there := [path.name for path in files if (folder / path.name).exists()]:
        raise UserError(f"{folder}: holds {', '.join(there)} already; nothing was copied. Give another folder, or remove them")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in files:
            (folder / path.name).write_bytes(path.read_bytes())
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror}. Give another folder") from None
    print(f"{folder}: {', '.join(path.name for path in files)}")
    return 0


def example_files() -> list:
    """The YAML files, tables and schemas: in a wheel inside the package (setup.py puts them there), in a checkout beside it."""
    from importlib.resources import files

    package = files("ecg_batch")
    inside = package / "configs"
    folder = inside if inside.is_dir() else Path(str(package)).parent / "configs"
    kinds = (".yaml", ".csv", ".schema.json")
    return sorted((path for path in folder.iterdir() if path.name.endswith(kinds)), key=lambda path: path.name)


def schemas() -> dict[str, bytes]:
    """The JSON schemas of the settings files by name, as they are kept beside the examples."""
    from ecg_batch.files import to_json
    from ecg_batch.request.parse import AskedRequest
    from ecg_batch.run.slurm.cluster import AskedCluster
    from ecg_batch.settings import schema

    return {"request.schema.json": to_json(schema(AskedRequest)), "cluster.schema.json": to_json(schema(AskedCluster))}


if __name__ == "__main__":  # for developers, in a checkout, after a change of a key
    for name, data in schemas().items():
        Path("configs", name).write_bytes(data)
