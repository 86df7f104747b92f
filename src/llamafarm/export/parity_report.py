"""The certificate for a person and for a program."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from llamafarm.errors import count_of
from llamafarm.export.parity import Certificate, Layer


def certificate_json(
    certificate: Certificate, *, file: str, sha256: str, versions: dict[str, str], created: str
) -> dict[str, Any]:
    """`parity.json`: `passed` first, then the figures. file: the one that was measured."""
    return {
        "passed": certificate.passed,
        "file": file,
        "sha256": sha256,
        "file_type": certificate.file_type,
        "prompts": certificate.prompts,
        "rows": certificate.rows,
        **asdict(certificate.figures),
        "tolerance": asdict(certificate.tolerance),
        "layers": [{"passed": layer.passed, **asdict(layer)} for layer in certificate.layers],
        "versions": versions,
        "created": created,
    }


def render_certificate(certificate: Certificate) -> str:
    """A line a layer, with the first difference of each that failed."""
    rows = [_layer_row(layer) for layer in certificate.layers]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = [
        "  "
        + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)).rstrip()
        for row in rows
    ]
    for i, layer in reversed(list(enumerate(certificate.layers))):
        if layer.finding:
            lines.insert(i + 1, f"      {layer.finding}")
    return "\n".join([_headline(certificate), *lines, *_figures(certificate)])


def certificate_line(certificate: Certificate) -> str:
    """The result in one line, for a README."""
    figures = certificate.figures
    return (
        f"{'passed' if certificate.passed else 'refused'}: the file in llama.cpp against what it "
        f"was made from, over {count_of(figures.positions, 'answer position')}: "
        f"mean KL divergence {figures.mean_kl:.2g}, the same next token in "
        f"{figures.agreed_anywhere:,} of {figures.positions:,}"
    )


def _headline(certificate: Certificate) -> str:
    verdict = "passed" if certificate.passed else "REFUSED"
    rows = count_of(certificate.rows, "prompt")
    return f"parity certificate, {certificate.file_type}: {verdict} ({rows}: {certificate.prompts})"


def _layer_row(layer: Layer) -> tuple[str, str, str]:
    verdict = "ok" if layer.passed else "FAILS"
    failed = "" if layer.passed else f"{layer.failed:,} of "
    return layer.name, verdict, f"{failed}{layer.checked:,}"


def _figures(certificate: Certificate) -> list[str]:
    figures, tolerance = certificate.figures, certificate.tolerance
    compared = (
        f"  over {count_of(figures.positions, 'answer position')}: "
        f"mean KL {figures.mean_kl:.2g} (allowed {tolerance.mean_kl:.2g}), "
        f"largest difference of a log-probability {figures.max_difference:.2g}"
    )
    agreed = (
        f"  same next token: {figures.agreed:,} of {figures.decided:,} where the trained model is "
        f"sure by more than {tolerance.margin:g}, {figures.agreed_anywhere:,} of "
        f"{figures.positions:,} in all"
    )
    return [compared, agreed]
