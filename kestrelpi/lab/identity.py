"""Who an emulated Pi is: the same MAC and serial in every run of the same lab."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from kestrelpi.errors import UserError
from kestrelpi.lab.profiles import PROFILES, Guid, Profile


@dataclass(frozen=True)
class PiSpec:
    """One emulated Pi."""

    index: int
    """Counts from 1 in its lab."""
    model: str
    """A key of PROFILES."""
    mac: str
    serial: str
    """The low 32 bits: 8 lower-case hex digits, the name of its TFTP folder."""

    @property
    def profile(self) -> Profile:
        return profile(self.model)

    @property
    def mac_bytes(self) -> bytes:
        return bytes.fromhex(self.mac.replace(":", ""))


def profile(model: str) -> Profile:
    """The profile of a model; raises UserError with the known ones."""
    if model not in PROFILES:
        raise UserError(f"the lab has no Pi model {model!r}", fix=f"models: {', '.join(PROFILES)}")
    return PROFILES[model]


def pi_spec(lab: str, index: int, model: str) -> PiSpec:
    """Pi number `index` (from 1) of the lab named `lab`: MAC and serial follow from these alone."""
    found = profile(model)
    digest = hashlib.sha256(f"{lab} {index} {model}".encode()).digest()
    tail = digest[:2] + bytes([index & 0xFF])
    mac = found.oui + "".join(f":{byte:02x}" for byte in tail)
    low = tail if found.serial_in_mac else digest[2:5]
    return PiSpec(index, model, mac, (digest[5:6] + low).hex())


def guid(pi: PiSpec, kind: Guid, fourcc: bytes) -> bytes:
    """The 17 bytes of option 97."""
    serial = int(pi.serial, 16).to_bytes(4, "little")
    if kind is Guid.CONSTANT:
        return b"\0" + b"\x44" * 16
    if kind is Guid.SERIAL:
        return b"\0" + serial * 4
    revision = pi.profile.revision.to_bytes(4, "little")
    return b"\0" + fourcc + revision + pi.mac_bytes[2:] + serial
