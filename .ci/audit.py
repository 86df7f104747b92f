"""Known holes in the tested versions, from pip-audit where it and its service answer."""

from __future__ import annotations

import json
import subprocess
import sys

_COMMAND = ["-m", "pip_audit", "--requirement", "constraints.txt", "--no-deps", "--disable-pip"]
_SECONDS = 120


def main() -> int:
    """1 for a version with a known hole; 0 where there is none, or where nothing can be known."""
    try:
        done = subprocess.run(
            [sys.executable, *_COMMAND, "--format", "json"],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        packages = json.loads(done.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        print(f"audit: not done, no answer in {_SECONDS} s")
        return 0
    except (ValueError, KeyError):
        reason = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        print(f"audit: not done, {reason}")
        return 0
    known = [package for package in packages if "skip_reason" not in package]
    if not known:
        print(f"audit: not done, its service knows none of {len(packages)} packages")
        return 0
    holes = [(p["name"], p["version"], v["id"]) for p in known for v in p["vulns"]]
    for name, version, hole in holes:
        print(f"audit: {name} {version} has {hole}")
    print(f"audit: {len(known)} of {len(packages)} packages are known, {len(holes)} known holes")
    return 1 if holes else 0


if __name__ == "__main__":
    raise SystemExit(main())
