"""The settings with which a step ran: those of dvc.lock where its results are the ones recorded there."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from chainforge.config.loading import PARAMS
from chainforge.doctor.runs import Keys
from chainforge.errors import ChainForgeError
from chainforge.project.graph import GraphStep, param
from chainforge.project.recorded import DVC_LOCK, md5

S = TypeVar("S", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class AsRun:
    """Sections of params.yaml by their dotted names, as a step had them."""

    sections: Mapping[str, Any]
    where: str

    def settings(self, kind: type[S], step: GraphStep) -> tuple[S, Keys]:
        """The step's settings, and where to change each. Raises ChainForgeError where they are no `kind`."""
        merged: dict[str, Any] = {}
        own = [(name, self.sections.get(name) or {}) for name in step.sections]
        for name, section in own:
            merged |= {name: section} if name in kind.model_fields else dict(section)
        try:
            settings = kind.model_validate(merged)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise ChainForgeError(
                f"{self.where}: the settings of {step.name} are not those of this version: {place}: "
                f"{first['msg']}",
                f"run it again: dvc repro {step.name}",
            ) from None
        named = [(name, section) for name, section in own if name not in kind.model_fields]
        return settings, Keys(tuple((name, frozenset(map(str, section))) for name, section in named))


def as_run(step: GraphStep, result: Path, recorded: Mapping[str, Any]) -> AsRun:
    """`result` is a file that the step wrote: only with the digest that dvc.lock has are its settings there
    the ones that led to it. Else those of params.yaml: the step runs now, or was run by hand."""
    entry = recorded.get(step.name) or {}
    known = {out.get("path"): out.get("md5") for out in entry.get("outs", ())}
    digest = known.get(result.as_posix())
    params = (entry.get("params") or {}).get(str(PARAMS))
    if digest and params and result.is_file() and digest == md5(result):
        return AsRun(params, str(DVC_LOCK))
    return AsRun({name: param(name) for name in ("run", *step.sections)}, str(PARAMS))
