"""Writes docs/soak.md from the results of `./dev soak`: `soak-page.py FOLDER PAGE`, a folder of JSON files a suite."""

import json
import os
import platform
import sys
from datetime import datetime, timezone
from pathlib import Path

KNOWN = ["test", "seconds", "calls", "failed", "failures", "p50_ms", "p99_ms", "max_ms"]
WHAT = {
    "rolling_restart": "every proxy and every agent, with its server, stopped by SIGTERM and started again, in turn",
    "an_agent_stops": "SIGTERM to the agent of a hot model whose load takes 3 s",
    "kills": "kill -9 of an agent, a proxy, control, a model server, an agent with its server, in turn, each back after 5 s",
    "freezes": "SIGSTOP of an agent, a proxy, control for 10 s each while copies are evicted",
    "network": "3 s of delay, answers cut, calls cut, resets, 10 s each: to an agent, to a model server, from a proxy to control",
    "control_away": "control killed and away for a minute",
}


def main(results, page):
    rows = [json.loads(file.read_text()) for file in sorted(Path(results).glob("*/*.json"))]
    cpus, day = os.cpu_count(), datetime.now(timezone.utc).strftime("%Y-%m-%d")
    lines = [
        "# What the long tests last showed",
        "",
        f"`./dev soak` on {day}, {cpus} CPUs ({platform.machine()}), debug build, the machine shared with other work. Made by",
        "`scripts/soak-page.py`; do not edit.",
        "",
        "Two proxies, three instances with room for 8 of 60 models each, steady calls by a Zipf law (`rolling_restart` and",
        "`an_agent_stops`: fewer models, all loaded). A test fails on an answer of a wrong model, an inference outside its span,",
        "a ledger over its capacity, and a failed call that its fault does not explain.",
        "",
        "| test | what was done | seconds | calls | failed | p50 / p99 / longest, ms | more |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        more = ", ".join(f"{key} {value}" for key, value in row.items() if key not in KNOWN)
        times = f"{row['p50_ms']} / {row['p99_ms']} / {row['max_ms']}"
        what = WHAT.get(row["test"], "")
        lines.append(f"| `{row['test']}` | {what} | {row['seconds']} | {row['calls']} | {row['failed']} | {times} | {more} |")
    failures = [(row["test"], text, count) for row in rows for text, count in row["failures"].items()]
    if failures:
        lines += ["", "Calls that failed:", "", "| test | what the caller got | calls |", "|---|---|---|"]
        lines += [f"| `{test}` | {text.replace('|', '/')} | {count} |" for test, text, count in failures]
    Path(page).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
