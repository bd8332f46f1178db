"""The locked versions are those that the ranges in pyproject.toml allow, each with its hashes."""

import os
import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
HASHES = r"(?:\n {4}--hash=sha256:[0-9a-f]{64}(?: \\)?)+"
PIN = re.compile(rf"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^ ;\\]+) \\{HASHES}")


@pytest.fixture(scope="module")
def locked():
    """Versions by canonical name; every line of the lock must be part of a pin with hashes."""
    text = "\n".join(line for line in (ROOT / "requirements.lock").read_text().splitlines() if line[:1] != "#")
    assert not PIN.sub("", text).strip()
    return {canonicalize_name(pin["name"]): pin["version"] for pin in PIN.finditer(text)}


def test_the_lock_has_a_version_within_every_range_of_the_project_and_its_tests(locked):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for line in (*project["dependencies"], *project["optional-dependencies"]["test"]):
        wanted = Requirement(line)
        assert wanted.specifier.contains(locked[canonicalize_name(wanted.name)]), line


def test_the_lock_names_a_cpu_build_and_no_place_to_fetch_from(locked):
    assert locked["torch"].endswith("+cpu")
    assert "://" not in (ROOT / "requirements.lock").read_text()


@pytest.mark.skipif(not os.environ.get("SELF_PRUNER_LOCKED"), reason="the environment was not made from the lock")
def test_what_is_installed_is_what_is_locked(locked):
    assert {name: version(name) for name in locked} == locked
