"""Nodes on the command line: their names, a group's, and the shell's completion of them."""

from __future__ import annotations

from collections.abc import Sequence

import click
from click.shell_completion import CompletionItem

from kestrelpi.config import Config
from kestrelpi.errors import UserError
from kestrelpi.nodes.finding import find_group, find_node
from kestrelpi.nodes.registry import Node, Registry
from kestrelpi.paths import Paths


def complete_nodes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of nodes for the shell's completion; none when the registry can't be read."""
    paths = Paths((ctx.find_root().params.get("root") or Paths().root).resolve())
    try:
        return [CompletionItem(one.name) for one in Registry.load(paths.registry) if one.name.startswith(incomplete)]
    except UserError:
        return []


def named_nodes(config: Config, registry: Registry, names: Sequence[str], group: str) -> list[Node]:
    """The nodes of these names and of this group; raises UserError for a wrong name, or when none is meant."""
    nodes = [find_node(registry, name) for name in names]
    if group:
        find_group(config, group)
        nodes += [node for node in registry if node.group == group and node not in nodes]
    if not nodes:
        raise UserError(f"the group {group} has no nodes" if group else "no node is named", fix="kestrelpi nodes list")
    return nodes
