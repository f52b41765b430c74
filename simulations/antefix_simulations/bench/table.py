"""A bench's report as text."""

from __future__ import annotations

from antefix.common.table import align
from antefix_simulations.bench.harness import BenchReport

_NAMES = {
    "ours": "Antefix, users in one batch",
    "peft": "PEFT prefix tuning, users in turn",
    "peft_lora": "PEFT LoRA, users in one batch",
    "served": "Antefix, a gateway over TLS",
    "served_base": "the gateway under no prefix",
    "one_user": "Antefix, users in turn",
    "shared_prefix": "Antefix, one prefix for all",
}


def table(report: BenchReport) -> str:
    """Lines for a terminal: what ran where, a line per arm, and what else was found."""
    machine = report.machine
    settings = ", ".join(f"{key} {value}" for key, value in report.settings.items())
    versions = ", ".join(f"{name} {machine[name]}" for name in ("torch", "transformers", "peft"))
    rows = [["arm", "real tokens/s", "min", "max", "tokens", "Antefix is"]]
    for name, arm in report.arms.items():
        ratio = f"{report.ratios[name]:.2f} x" if name in report.ratios else ""
        rates = [f"{rate:,.1f}" for rate in (arm.rate, min(arm.rates), max(arm.rates))]
        rows.append([_NAMES[name], *rates, f"{arm.tokens:,}", ratio])
    return "\n".join(
        [
            f"bench {report.bench}: {settings}",
            f"{machine['processor']}, {machine['device']}, {machine['dtype']}, {machine['threads']} threads, "
            f"load {machine['load']}",
            versions,
            "",
            *align(rows),
            "",
            report.conclusion,
        ]
    )
