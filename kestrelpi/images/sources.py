"""Where scripts, package lists and overlay files of an image come from: the layers for the override rule."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from kestrelpi.config import Config
from kestrelpi.images.modules import Module, of_frontend, of_image
from kestrelpi.images.overrides import Layer, Resolved, resolve
from kestrelpi.paths import Paths, data_dir

Side = Literal["node", "frontend"]
OverlayKind = Literal["boot", "initramfs", "node", "runtime", "frontend"]


def script_layers(
    paths: Paths, side: Side, phase: str, modules: Iterable[Module], image: str = "", data: Path | None = None
) -> list[Layer]:
    """The folders of one phase's scripts, the weakest first; an image has its own only on the node's side."""
    layers = [Layer((data or data_dir()) / "phases" / side / f"{phase}.d", "built-in")]
    for module in modules:
        layers += module.layers(f"{side}/{phase}.d")
    layers.append(Layer(paths.etc / side / f"{phase}.d", "/etc/kestrelpi"))
    if image and side == "node":
        layers.append(Layer(paths.etc / "images" / image / f"{phase}.d", f"image {image}"))
    return layers


def overlay_layers(
    paths: Paths, kind: OverlayKind, modules: Iterable[Module], image: str = "", data: Path | None = None
) -> list[Layer]:
    """The folders of one overlay, the weakest first."""
    layers = [Layer((data or data_dir()) / "overlays" / kind, "built-in")]
    for module in modules:
        layers += module.layers(f"overlay/{kind}")
    layers.append(Layer(paths.etc / "overlays" / kind, "/etc/kestrelpi"))
    if image:
        layers.append(Layer(paths.etc / "images" / image / "overlays" / kind, f"image {image}"))
    return layers


def overlay(paths: Paths, config: Config, image: str, kind: OverlayKind) -> dict[str, Resolved]:
    """The files of an overlay that are in force for `image`: path inside the overlay (without `.j2`) → file."""
    return resolve(overlay_layers(paths, kind, of_image(paths, config, image), image))


def frontend_scripts(paths: Paths, config: Config, phase: str) -> dict[str, Resolved]:
    """The frontend's scripts of a phase; the modules of all images count, each once."""
    return resolve(script_layers(paths, "frontend", phase, of_frontend(paths, config)))


def frontend_overlay(paths: Paths, config: Config) -> dict[str, Resolved]:
    """The files of the overlay `frontend`: path below the root (without `.j2`) → file."""
    return resolve(overlay_layers(paths, "frontend", of_frontend(paths, config)))
