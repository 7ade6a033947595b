"""What pyproject.toml cannot say: which compiled kernels there are for a machine, a wheel that any Python 3 takes, and the examples
of configs/ with their schemas, which go into it as ecg_batch/configs/.
"""

import os
import platform
import re
import shutil
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

CONFIGS = sorted(path for end in ("yaml", "csv", "schema.json") for path in Path("configs").glob(f"*.{end}"))
KERNELS = Path("ecg_batch", "kernels")

# The kernels, once for each kind of CPU; kernels/build.py picks. LANES: float32 numbers in a vector.
X86_64 = {
    "_avx512": ["-DLANES=16", "-mavx512f", "-mavx512vl", "-mavx512dq", "-mavx512bw", "-mfma", "-mprefer-vector-width=512"],
    "_avx2": ["-DLANES=8", "-mavx2", "-mfma"],
    "_sse2": ["-DLANES=4"],  # what every x86-64 has
}
ARM64 = {"_neon": ["-DLANES=4"]}  # what every arm64 has
KINDS = {"x86_64": X86_64, "amd64": X86_64, "aarch64": ARM64, "arm64": ARM64}
VERSION = re.search(r"^VERSION = (\d+)", (KERNELS / "build.py").read_text(encoding="utf-8"), re.MULTILINE)[1]
COMPILE = ["-O3", "-std=c++17", "-ffp-contract=fast", "-fno-exceptions", f"-DKERNELS_VERSION={VERSION}"]
LINK = {"Linux": ["-static-libstdc++", "-static-libgcc"]}  # so that an older system's own do


def kernels() -> list[Extension]:
    """optional: without a compiler plain torch and numpy run."""
    machine = sysconfig.get_platform().rpartition("-")[2].lower()  # of the wheel: another where a cross compiler makes it
    return [
        Extension(
            f"ecg_batch.kernels.{name}",
            sorted(map(str, KERNELS.glob("*.cpp"))),
            depends=sorted(map(str, (*KERNELS.glob("*.h"), KERNELS / "build.py"))),
            language="c++",
            extra_compile_args=[*COMPILE, *flags],
            extra_link_args=LINK.get(platform.system(), []),
            optional=True,
        )
        for name, flags in KINDS.get(machine, KINDS.get(platform.machine().lower(), {})).items()
    ]


class ForAnyPython(build_ext):
    """The kernels are called by ctypes and know nothing of Python, so neither do their names."""

    def get_ext_filename(self, fullname: str) -> str:
        return os.path.join(*fullname.split(".")) + ".so"


class TaggedForAnyPython(bdist_wheel):
    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


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


setup(ext_modules=kernels(), cmdclass={"build_ext": ForAnyPython, "bdist_wheel": TaggedForAnyPython, "build_py": WithConfigs})
