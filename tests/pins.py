"""`python -m tests.pins`: what an installation needs to run, pinned as it is installed here, for requirements.txt."""

import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution, version

from packaging.requirements import Requirement

from tests.running import ROOT

HEAD = """\
# What the relay runs with, pinned, and the relay itself; for platforms that install from this file.
# `make pins` writes it anew from the versions that are installed.
"""


def normal(name: str) -> str:
    """A distribution's name as all its spellings compare."""
    return re.sub(r"[-_.]+", "-", name).lower()


def direct() -> list[Requirement]:
    """What pyproject.toml asks for to run."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [Requirement(line) for line in project["dependencies"]]


def needed(requirement: Requirement) -> set[str]:
    """The distributions that an installed distribution needs at once, with the extras that are asked for."""
    extras = requirement.extras or {""}
    asked = [Requirement(line) for line in distribution(requirement.name).requires or ()]
    found: set[str] = set()
    for one in asked:
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in extras):
            found |= {str(one)}
    return found


def closure() -> dict[str, str]:
    """Everything that must be installed, with its version here."""
    waiting, seen, pins = direct(), set(), {}
    while waiting:
        requirement = waiting.pop()
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        try:
            pins[normal(requirement.name)] = version(requirement.name)
        except PackageNotFoundError:
            continue  # not for this platform
        waiting += [Requirement(line) for line in needed(requirement)]
    return dict(sorted(pins.items()))


if __name__ == "__main__":
    sys.stdout.write(HEAD + "".join(f"{name}=={number}\n" for name, number in closure().items()) + ".\n")
