"""How a boot ends badly."""

from __future__ import annotations

LED = {
    "firmware": "4 short flashes: start.elf not found",
    "kernel": "7 short flashes: kernel image not found",
}
"""What the activity LED shows for a failure in a stage (the vendor's table of warning codes); others show nothing."""


class BootFailure(Exception):
    """A stage of the boot loader gave up."""

    def __init__(self, stage: str, reason: str, led: str = "") -> None:
        super().__init__(f"{stage}: {reason}")
        self.stage = stage
        self.reason = reason
        self.led = led
