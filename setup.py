"""The files of a project travel with the package, as chainforge/bundled/; all else is in pyproject.toml."""

import runpy
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
LISTS = runpy.run_path(str(HERE / "chainforge/bundle.py"))


class BuildWithProject(build_py):
    """Copies them into the wheel. An editable install reads them where they lie."""

    def bundled(self) -> list[str]:
        patterns = (*LISTS["COPIED"], *LISTS["USED"])
        return sorted(p.relative_to(HERE).as_posix() for one in patterns for p in HERE.glob(one))

    def target(self, name: str) -> str:
        return str(Path(self.build_lib, "chainforge", "bundled", name))

    def run(self) -> None:
        super().run()
        shutil.rmtree(self.target(""), ignore_errors=True)  # what an earlier build has left there
        for name in () if self.editable_mode else self.bundled():
            self.mkpath(str(Path(self.target(name)).parent))
            self.copy_file(name, self.target(name), preserve_mode=False)

    def get_source_files(self) -> list[str]:
        return [*super().get_source_files(), "chainforge/bundle.py", *self.bundled()]  # for the sdist

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        extra = () if self.editable_mode else self.bundled()
        return [*super().get_outputs(include_bytecode), *map(self.target, extra)]


setup(cmdclass={"build_py": BuildWithProject})
