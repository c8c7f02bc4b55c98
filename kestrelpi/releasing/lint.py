"""All checks of a generation, and what of their flaws refuses it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kestrelpi.config import Config
from kestrelpi.errors import UserError
from kestrelpi.finding import Severity
from kestrelpi.images.store import Generation, Store
from kestrelpi.nodes.registry import Registry
from kestrelpi.paths import Paths
from kestrelpi.releasing.candidates import check_candidate
from kestrelpi.releasing.coherence import CHECKS, Check
from kestrelpi.releasing.flaw import Flaw
from kestrelpi.releasing.subject import Candidate, Subject, subject


def lint(paths: Paths, config: Config, generation: Generation, *, fresh: bool = False) -> list[Flaw]:
    """What is wrong with `generation`, what refuses it first. `fresh`: its files were hashed a moment ago.

    A flaw that only concerns Pis of the registry is a warning where the current generation has the same: one Pi that
    never booted must not keep the others from what is new. One that boots today may not lose that.
    """
    registry = Registry.load(paths.registry, config)
    flaws = examine(subject(paths, config, generation, registry), CHECKS[1:] if fresh else CHECKS)
    current = Store(paths).current(generation.image)
    if current and current.id != generation.id and any(flaw.severity is Severity.WARNING for flaw in flaws):
        flaws = against(flaws, subject(paths, config, current, registry))
    return sorted(flaws, key=lambda flaw: -flaw.severity)


def against(flaws: Sequence[Flaw], current: Subject) -> list[Flaw]:
    """`flaws` with those warnings as errors that the current generation doesn't have."""
    before = {_kind(flaw) for flaw in examine(current)}
    return [replace(one, severity=Severity.ERROR) if one.about and _kind(one) not in before else one for one in flaws]


def _kind(flaw: Flaw) -> tuple[str, str]:
    return (flaw.check, flaw.about)


def examine(subject: Subject, checks: Sequence[Check] = CHECKS) -> list[Flaw]:
    """Every check; equal flaws of several models are told once."""
    flaws = [flaw for check in checks for flaw in check(subject)]
    if subject.unrendered:
        flaws.append(Flaw("config.txt", subject.unrendered, "overlays/boot", "restore config.txt and cmdline.txt"))
    found = [[*check_candidate(subject, one)] for one in subject.candidates]
    if not subject.named:
        return flaws + _of_nobody(subject.candidates, found)
    for one, own in zip(subject.candidates, found, strict=True):
        severity = Severity.ERROR if one.configured else Severity.WARNING
        flaws += [replace(flaw, severity=severity) for flaw in own]
    return list(dict.fromkeys(flaws))


def _of_nobody(candidates: Sequence[Candidate], found: Sequence[list[Flaw]]) -> list[Flaw]:
    """Nobody has said which Pis there are: it is enough that one model boots; else what keeps a Pi 4 from it."""
    if not found or any(not own for own in found):
        return []
    models = [one.board.model for one in candidates]
    return found[models.index("4B")] if "4B" in models else found[0]


def refuse(flaws: Sequence[Flaw], generation: Generation) -> None:
    """Raise UserError if one of the flaws is an error."""
    errors = [flaw for flaw in flaws if flaw.severity is Severity.ERROR]
    if errors:
        raise UserError(
            f"the generation is refused: {errors[0].what}",
            where=errors[0].where,
            detail="\n".join(f"{one.check}: {one.what}" for one in errors[1:]),
            fix=errors[0].fix.replace("NAME", generation.image),
        )
