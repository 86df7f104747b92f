"""Rows that hold personal data or secrets, by kind."""

from __future__ import annotations

from dataclasses import dataclass

from llamafarm.data.quality.personal import first_of_each_kind
from llamafarm.data.quality.report import Finding
from llamafarm.data.quality.row import QualityRow
from llamafarm.data.quality.spans import PersonalKind
from llamafarm.data.quality.tally import Tally
from llamafarm.errors import count_of


@dataclass(frozen=True, slots=True)
class _Kind:
    kind: PersonalKind
    holds: str
    advice: str


_LEARNS = "a model repeats what it learnt, so"
_REVOKE = f"{_LEARNS} revoke it, and take it out of the rows before training"


def _remove(pattern: str) -> str:
    return (
        f"{_LEARNS} replace them in the file, or cut them out: "
        f"data_preprocessing.remove_patterns: ['{pattern}']"
    )


_KINDS = (
    _Kind("private_key", "hold a private key", _REVOKE),
    _Kind("secret", "hold what looks like an API key or a token", _REVOKE),
    _Kind("url_password", "hold a password in a URL", _REVOKE),
    _Kind(
        "card",
        "hold a payment card's number (its check digit is right)",
        _remove(r"\b[2-6]\d{3}(?:[ -]?\d){9,15}\b"),
    ),
    _Kind(
        "iban",
        "hold a bank account's number (an IBAN whose check digits are right)",
        _remove(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"),
    ),
    _Kind(
        "email",
        "hold an e-mail address",
        _remove(r"\b[\w.%+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+"),
    ),
    _Kind("phone", "hold a phone number", _remove(r"\+?\(?\d(?:[ ().\-/]{0,2}\d){7,14}")),
    _Kind("ip_address", "hold a public IP address", _remove(r"\b\d{1,3}(?:\.\d{1,3}){3}\b")),
)


class PersonalCheck:
    """Counts a row once for each kind that it holds, wherever it stands: question or answer."""

    def __init__(self) -> None:
        self._tallies = {entry.kind: Tally() for entry in _KINDS}

    def see(self, row: QualityRow) -> None:
        """One more row."""
        for span in first_of_each_kind(row.text, row.makeup.digits):
            self._tallies[span.kind].add(row.source, row.text, span.start)

    def findings(self) -> list[Finding]:
        """The kinds that there are."""
        return [
            self._finding(entry, self._tallies[entry.kind])
            for entry in _KINDS
            if self._tallies[entry.kind].rows
        ]

    def _finding(self, entry: _Kind, tally: Tally) -> Finding:
        holds = entry.holds.replace("hold", "holds", 1) if tally.rows == 1 else entry.holds
        text = f"{count_of(tally.rows, 'row')} {holds}"
        return tally.finding(entry.kind, text, entry.advice, "warning")
