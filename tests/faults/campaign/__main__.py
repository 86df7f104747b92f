"""`python -m tests.faults.campaign`: see command.py."""

from tests.faults.campaign.command import main

if __name__ == "__main__":
    raise SystemExit(main())
