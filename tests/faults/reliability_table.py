"""Write the counts of `make test-faults` into docs/reliability.md (argument: the file that holds them)."""

from __future__ import annotations

import json
import platform
import re
import sys
from collections import Counter
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- counts: make test-faults -->", "<!-- end of counts -->"


def main(ledger: Path) -> None:
    rows = [json.loads(line) for line in ledger.read_text(encoding="utf-8").splitlines()]
    rows.sort(key=lambda row: (*_order(row["fault"]), row["what"]))
    counts: dict[tuple[str, str, str], Counter[str]] = {}
    for row in rows:  # a test with parameters writes several
        counts.setdefault((row["what"], row["test"], row["sees"]), Counter()).update(
            tried=row["tried"], survived=row["survived"]
        )
    lines = ["| fault | tried | survived | what the user sees |", "|---|---|---|---|"]
    lines += [
        f"| [{what}](../{test}) | {count['tried']} | {count['survived']} | {sees} |"
        for (what, test, sees), count in counts.items()
    ]
    total = (
        f"{len(counts)} faults, {sum(r['tried'] for r in rows)} attempts, {sum(r['survived'] for r in rows)} survived"
    )
    lines += ["", f"{total}; Python {platform.python_version()}, {platform.machine()}."]
    page = PAGE.read_text(encoding="utf-8")
    table = "\n".join(lines)
    PAGE.write_text(re.sub(f"{BEGIN}.*{END}", lambda _: f"{BEGIN}\n{table}\n{END}", page, flags=re.S), encoding="utf-8")
    print(total)


def _order(number: str) -> tuple[int, str]:
    digits = re.match(r"\d+", number)
    return (int(digits[0]) if digits else 1000, number)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
