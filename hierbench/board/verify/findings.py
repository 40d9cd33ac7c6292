"""What a verification found, and what it could not look at."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hierbench.errors import ExitCode, HierbenchError

SHOWN = 300


@dataclass(frozen=True)
class Finding:
    """One reason to refuse a package."""

    path: Path
    reason: str
    """Begins with the field, where it is about one."""
    malformed: bool = False
    """The package cannot be read as one; else it can, and says something that does not hold."""

    @property
    def line(self) -> str:
        """File and reason in one printable line."""
        text = " ".join(f"{self.path}: {self.reason}".split())
        text = "".join(c if c.isprintable() else "?" for c in text)
        return text if len(text) <= SHOWN + len(str(self.path)) else text[: SHOWN + len(str(self.path))] + " ..."


@dataclass
class Report:
    """Everything that was found in one package, and everything that was not looked at."""

    folder: Path
    what: str = "nothing was read"
    """What was read, in words."""
    findings: list[Finding] = field(default_factory=list)
    unchecked: dict[str, str] = field(default_factory=dict)
    """What was not checked, and why."""

    @property
    def verified(self) -> bool:
        """True if there is no finding."""
        return not self.findings

    @property
    def exit_code(self) -> ExitCode:
        """What the process tells the shell: 2 for a malformed package, 3 for one that does not hold."""
        if any(finding.malformed for finding in self.findings):
            return ExitCode.BAD_INPUT
        return ExitCode.UNTRUSTED if self.findings else ExitCode.DONE

    def refuse(self, path: Path, reason: str, *, malformed: bool = False) -> None:
        """Add a finding."""
        self.findings.append(Finding(path, reason, malformed))

    def refuse_error(self, path: Path, error: HierbenchError) -> None:
        """Add what a reader said of a file; the file is named once."""
        message = str(error)
        _, named, rest = message.partition(f"{path}: ")
        self.refuse(path, rest if named else message, malformed=True)
