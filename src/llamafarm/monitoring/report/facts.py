"""What a report says in lines of label and text."""

from __future__ import annotations

from llamafarm.errors import count_of
from llamafarm.monitoring.events import SettingsEvent
from llamafarm.monitoring.formats import format_bytes
from llamafarm.monitoring.run_record import RunRecord

Facts = tuple[tuple[str, str], ...]
"""Label and text; an empty label goes on with the one before."""


def settings_facts(settings: SettingsEvent) -> Facts:
    """The few values that make the run what it is."""
    share = settings.trainable_parameters / max(settings.total_parameters, 1)
    of_all = f"of {settings.total_parameters:,} parameters ({share:.2%})"
    adapter = f", r {settings.rank}, alpha {settings.alpha:g}, dropout {settings.dropout:g}"
    warmup = count_of(settings.warmup_steps, "warmup step")
    batch = settings.micro_batch_size * settings.accumulation_steps
    parts = f"{settings.micro_batch_size} × {settings.accumulation_steps}"
    epochs = f"{settings.num_epochs:.2f} epochs of {settings.train_rows:,} rows"
    return (
        ("method", settings.method + (adapter if settings.rank else "")),
        ("trained", f"{settings.trainable_parameters:,} {of_all}"),
        ("learning rate", f"{settings.learning_rate:g}, {settings.scheduler}, {warmup}"),
        ("batch", f"{count_of(batch, 'row')} a step ({parts})"),
        ("length", f"{count_of(settings.total_steps, 'step')}, {epochs}"),
    )


def version_facts(record: RunRecord) -> Facts:
    """What has to be the same for the same run."""
    facts: list[tuple[str, str]] = []
    if record.command:
        facts.append(("command", record.command))
    if record.model:
        facts.append(("base model", f"{record.model.name} ({record.model.kind})"))
        facts.append(("base weights", f"sha256 {record.model.fingerprint}"))
        facts += [("", record.model.notice)] if record.model.notice else []
    if record.data_fingerprint:
        facts.append(("data", f"sha256 {record.data_fingerprint}"))
    if record.strategy_sha256:
        facts.append(("strategy", f"{record.strategy}, sha256 {record.strategy_sha256}"))
    if record.seed is not None:
        facts.append(("seed", str(record.seed)))
    facts += _machine(record)
    facts += [(name, version) for name, version in record.versions.items()]
    return tuple(facts)


def _machine(record: RunRecord) -> list[tuple[str, str]]:
    hardware = record.hardware
    if hardware is None:
        return []
    cpu = hardware.cpu
    processor = f"{cpu.name}, {count_of(cpu.usable_cores, 'core')}, {cpu.capability}"
    memory = f"{format_bytes(cpu.memory_total_bytes)} of memory"
    facts = [("machine", f"{hardware.system}, {processor}, {memory}")]
    facts += [
        ("", f"{a.name}, {format_bytes(a.memory_total_bytes)} of memory")
        for a in hardware.accelerators
    ]
    return [*facts, ("Python", hardware.python_version)] if hardware.python_version else facts
