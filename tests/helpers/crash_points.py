"""Runs under the crash shim: `crash_points.py SCENARIO MATCH FOLDER WRITES` kills SCENARIO at its
writes, one child each.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import storage_scenarios as scenarios

WRITES = ("write", "pwrite")


def run(scenario: str, folder: Path, match: str, number: int, when: str) -> tuple[bool, list[str]]:
    """Run the scenario in a child that dies at call `number`; whether it died, and the calls that
    it made.
    """
    folder.mkdir(parents=True)
    log = folder / "calls"
    child = os.fork()
    if child == 0:
        os.environ.update(
            CRASH_MATCH=match, CRASH_AT=str(number), CRASH_WHEN=when, CRASH_LOG=str(log)
        )
        status = 1
        try:
            getattr(scenarios, scenario)(folder)
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    died = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    if not died and status != 0:
        raise SystemExit(f"{scenario}: child {number} ended with {status}")
    return died, log.read_text().splitlines() if log.exists() else []


def main(scenario: str, match: str, base: Path, writes: int) -> None:
    """Print the crashes as JSON: a call is cut before, a write also in the middle; last comes a run
    to the end.
    """
    died, calls = run(scenario, base / "whole", match, 0, "before")
    written = [n for n, line in enumerate(calls, 1) if line.split()[1] in WRITES]
    chosen = set(written[:: -(-len(written) // writes)])
    crashes = []
    for number, line in enumerate(calls, 1):
        call = line.split()[1]
        for when in ("before", "half") if call in WRITES else ("before",):
            if call not in WRITES or number in chosen:
                folder = base / f"{number}-{when}"
                died, _ = run(scenario, folder, match, number, when)
                crashes.append(
                    {
                        "folder": str(folder),
                        "number": number,
                        "when": when,
                        "call": call,
                        "died": died,
                    }
                )
    crashes.append(
        {"folder": str(base / "whole"), "number": 0, "when": "before", "call": "", "died": False}
    )
    json.dump(crashes, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
