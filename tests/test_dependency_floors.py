"""No version with a hole that is known is allowed: neither by what the package asks for, nor by
what it is tested with.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
# The first version without the hole, and what the hole was.
FLOORS = {
    "certifi": ("2024.7.4", "CVE-2024-39689: a root that is no longer trusted"),
    "datasets": ("4.0", "loading scripts of a dataset are Python that runs; removed in 4.0"),
    "filelock": ("3.20.1", "CVE-2025-68146: a link that is planted is followed"),
    "h11": ("0.16.0", "CVE-2025-43859: malformed chunks are accepted"),
    "idna": ("3.7", "CVE-2024-3651: quadratic time"),
    "jinja2": ("3.1.6", "CVE-2024-56326, CVE-2025-27516: escapes from the sandbox"),
    "pillow": ("10.3.0", "CVE-2024-28219: an overflow"),
    "protobuf": ("6.31.1", "CVE-2025-4565: recursion without end"),
    "pyarrow": ("14.0.1", "CVE-2023-47248: code runs while a file is read"),
    "pygments": ("2.15.1", "CVE-2022-40896: quadratic time"),
    "pypdf": ("6.0.0", "CVE-2025-55197: memory without end"),
    "pyyaml": ("5.4", "CVE-2020-14343: FullLoader runs code"),
    "requests": ("2.32.4", "CVE-2024-47081: credentials of .netrc are leaked"),
    "setuptools": ("78.1.1", "CVE-2025-47273: a path leads elsewhere"),
    "starlette": ("1.3.1", "CVE-2025-62727, CVE-2026-48710, CVE-2026-54282: quadratic time, paths"),
    "torch": ("2.10", "CVE-2025-32434, CVE-2026-24747: torch.load(weights_only=True)"),
    "tqdm": ("4.66.3", "CVE-2024-34062: code in an argument"),
    "transformers": ("5.3", "CVE-2026-1839, CVE-2026-4372: code of a repository runs"),
    "urllib3": ("2.6.0", "CVE-2025-66418, CVE-2025-66471: compressed without end"),
    "uvicorn": ("0.11.7", "CVE-2020-7695: a header that holds another"),
    "werkzeug": ("3.0.6", "CVE-2024-49767: memory without end"),
}  # fmt: skip


def _constraints() -> dict[str, list[Version]]:
    """Versions by package; some have one for every Python."""
    found: dict[str, list[Version]] = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        pinned = re.match(r"([A-Za-z0-9._-]+)==([^ ;]+)", line)
        if pinned:
            found.setdefault(pinned[1].lower(), []).append(Version(pinned[2]))
    return found


def _asked_for() -> dict[str, Version]:
    """Lower bounds of everything that pyproject.toml names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    optional = project["project"]["optional-dependencies"].values()
    lists = (project["project"]["dependencies"], *optional, project["dependency-groups"]["dev"])
    found: dict[str, Version] = {}
    for text in (item for items in lists for item in items):
        requirement = Requirement(text)
        bounds = [Version(s.version) for s in requirement.specifier if s.operator in (">=", "==")]
        if bounds:
            found[requirement.name.lower()] = max(bounds)
    return found


@pytest.mark.parametrize("name", sorted(FLOORS.keys() & _asked_for().keys()))
def test_the_package_asks_for_no_version_with_a_known_hole(name: str) -> None:
    floor, hole = FLOORS[name]
    assert _asked_for()[name] >= Version(floor), hole


@pytest.mark.parametrize("name", sorted(FLOORS.keys() & _constraints().keys()))
def test_no_version_that_is_tested_has_a_known_hole(name: str) -> None:
    floor, hole = FLOORS[name]
    assert all(version >= Version(floor) for version in _constraints()[name]), hole


def test_the_floors_that_make_loading_safe_are_asked_for() -> None:
    assert {"torch", "transformers", "jinja2", "datasets", "pyyaml"} <= _asked_for().keys()


def test_everything_that_is_asked_for_and_tested_fits() -> None:
    constraints = _constraints()
    for name, bound in _asked_for().items():
        assert all(version >= bound for version in constraints.get(name, [])), name
