"""What pyproject.toml cannot say: the examples of configs/ and their schemas go into the wheel, as ecg_batch/configs/."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

CONFIGS = sorted(path for end in ("yaml", "csv", "schema.json") for path in Path("configs").glob(f"*.{end}"))


class WithConfigs(build_py):
    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return  # ecg_batch.cli.configs finds them where they are
        for path in CONFIGS:
            target = self._target(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        ours = [] if self.editable_mode else [str(self._target(path)) for path in CONFIGS]
        return super().get_outputs(include_bytecode) + ours

    def _target(self, path: Path) -> Path:
        return Path(self.build_lib, "ecg_batch", path)


setup(cmdclass={"build_py": WithConfigs})
