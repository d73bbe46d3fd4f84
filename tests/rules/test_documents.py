"""The documents show the ledger's numbers and no others, and the ledger is as its reader writes it."""

from __future__ import annotations

from metrics.reporting.ledger import LEDGER_FILE, read_ledger, to_csv
from metrics.reporting.pages import Pages
from scripts.ledger import DOCS


def test_the_documents_are_what_the_ledger_gives() -> None:
    Pages(DOCS).check()


def test_the_ledger_is_complete_and_in_its_own_form() -> None:
    path = DOCS / LEDGER_FILE
    numbers = read_ledger(path)
    assert len(numbers) > 600
    assert to_csv(numbers) == path.read_text(encoding="utf-8")
