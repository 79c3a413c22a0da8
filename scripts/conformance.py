"""Let the fuzzing client of the Autobahn test suite loose on the gateway's WebSocket; see `scripts/autobahn --help`."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.harness.echoing import echoing

AGENT = "gateway"
GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}
"""What the suite calls conforming: it says NON-STRICT of what is left open by the standard, too."""
Results = dict[str, dict[str, Any]]


async def run(wstest: list[str], cases: list[str], report: Path) -> Results:
    """Run these cases; return what the suite thinks of each."""
    async with echoing() as url:
        specification = {
            "outdir": str(report),
            "servers": [{"agent": AGENT, "url": url}],
            "cases": cases,
            "exclude-cases": [],
            "exclude-agent-cases": {},
        }
        file = report / "specification.json"
        file.write_text(json.dumps(specification))
        process = await asyncio.create_subprocess_exec(*wstest, "--mode", "fuzzingclient", "--spec", str(file))
        try:
            code = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
        if code:
            sys.exit(f"the suite ended with exit code {code}")
    results: Results = json.loads((report / "index.json").read_text())[AGENT]
    return results


def verdict(result: dict[str, Any]) -> str:
    """Say in a word how one case went, the way the connection was closed included."""
    if result["behaviorClose"] in GOOD or result["behavior"] not in GOOD:
        return str(result["behavior"])
    return f"{result['behavior']}, closed {result['behaviorClose']}"


def tell(results: Results, report: Path) -> bool:
    """Print how it went; return whether nothing failed."""
    verdicts = {case: verdict(result) for case, result in results.items()}
    for case, said in verdicts.items():
        if said != "OK":
            print(f"{case}: {said}")
    print(", ".join(f"{count} {said}" for said, count in Counter(verdicts.values()).most_common()))
    print(f"report: {report / 'index.html'}")
    failed = [case for case, said in verdicts.items() if said not in GOOD]
    print(f"{len(verdicts) - len(failed)} passed, {len(failed)} failed")
    return bool(verdicts) and not failed


def main() -> None:
    """Read the options; exit code 1 when a case failed."""
    parser = argparse.ArgumentParser(prog="scripts/autobahn", description=main.__doc__)
    parser.add_argument("cases", nargs="*", default=["*"], help='such as "7.*" 12.1.1; default all, in ten minutes')
    parser.add_argument("--report", type=Path, help="folder for the report; default a new one under the system's own")
    options = parser.parse_args()
    report = options.report or Path(tempfile.mkdtemp(prefix="autobahn-"))
    report.mkdir(parents=True, exist_ok=True)
    wstest = [os.environ["PYTHON2"], os.environ["WSTEST"]]
    results = uvloop.run(run(wstest, options.cases, report.resolve()))
    sys.exit(not tell(results, report))


if __name__ == "__main__":
    main()
