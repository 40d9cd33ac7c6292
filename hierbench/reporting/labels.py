"""What tells the attacks of one table apart."""

from __future__ import annotations

from collections.abc import Sequence

from hierbench.evaluation.records import Record

ENGINE = "hierbench"


def attack_labels(records: Sequence[Record]) -> list[str]:
    """Return a label for each record's attack: its name, and what differs from others of that name.

    Settings and engine that all records of a name share are said in the notes, not here.
    """
    labels = []
    for record in records:
        attack = record.identity.attack
        others = [r.identity.attack for r in records if r.identity.attack.name == attack.name]
        names = dict.fromkeys(name for other in others for name in other.parameters)
        parts = [
            f"{name} {attack.parameters[name]}"
            for name in names
            if name in attack.parameters and any(o.parameters.get(name) != attack.parameters[name] for o in others)
        ]
        if attack.engine != ENGINE:
            parts.append(f"by {attack.engine}")
        labels.append(f"{attack.name} ({', '.join(parts)})" if parts else attack.name)
    return labels


def ball(record: Record, *, word: str = "") -> str:
    """Return the threat model in words; an attack on texts alone has none, whatever radius was given."""
    attack, checks = record.identity.attack, record.checks
    if checks.text_rejected is not None and checks.max_linf == 0:
        return "texts only"
    return f"{attack.norm}{word} {attack.eps}"
