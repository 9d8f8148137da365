"""What plugins register, by role and name."""

from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from chainforge.errors import ChainForgeError, unknown

ROLES = ("rewards", "prompt_sources", "teachers", "student_models")
Key = tuple[str, str]  # role and name


@dataclass(frozen=True, slots=True)
class Entry:
    """One named component: what was registered, and where it comes from."""

    role: str
    name: str
    component: Any
    options: dict[str, Any]
    source: str  # "plugins/reward_format.py" or "distribution 1.2.0"
    module: ModuleType
    override: bool = False  # whether it asks to be the one, where others have the same name
    instead_of: str = ""  # the source of the one that it displaced

    @property
    def who(self) -> str:
        """How errors name it."""
        return f"{role_title(self.role)} {self.name!r} ({self.source})"


@dataclass(frozen=True, slots=True)
class Plugins:
    """All components by role and name, and the plugins that could not be used, with the reason."""

    entries: dict[Key, Entry] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)  # by file, or distribution and entry point
    contested: dict[Key, tuple[str, str]] = field(default_factory=dict)  # the sources that claim one name

    def names(self, role: str) -> list[str]:
        """Every name that can be selected for a role."""
        return sorted(name for kind, name in self.entries if kind == role)

    def pick(self, role: str, name: str) -> Entry:
        """The component of that name. Raises ChainForgeError where two plugins claim it, or none has it: with
        the nearest name then, and any broken plugin."""
        if claims := self.contested.get((role, name)):
            first, second = claims
            raise ChainForgeError(
                f"two plugins register the {role_title(role)} {name!r}: {first} and {second}",
                "rename one, or take its file away; or choose: register(…, override=True) in the one to use",
            )
        if (role, name) in self.entries:
            return self.entries[role, name]
        error = unknown(role_title(role), name, self.names(role))
        if self.broken:
            reasons = "; ".join(f"{source}: {reason}" for source, reason in sorted(self.broken.items()))
            raise ChainForgeError(error.problem, f"{error.fix}\n  -> these plugins did not load: {reasons}")
        raise error


def role_title(role: str) -> str:
    """A role in the singular, as messages name it: "prompt source"."""
    return role.removesuffix("s").replace("_", " ")
