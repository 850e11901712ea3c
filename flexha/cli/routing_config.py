# SPDX-License-Identifier: Apache-2.0
"""``flexhactl routing show-config``: a routing daemon's configuration, made from the pair's file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from flexha.config import bird, frr
from flexha.config.bgp import speaker
from flexha.config.load import load
from flexha.config.schema import NODE_NAMES
from flexha.errors import ConfigError


def made_from(path: Path, node: str | None, form: Literal["frr", "bird"]) -> str:
    """The text, for a node that is not ACTIVE.

    Raises: ConfigError if the file is wrong, has no such node, or no ``[bgp]``.
    """
    config = load(path)
    names = [name for name in NODE_NAMES if name in config.nodes and node in {None, name}]
    if len(names) != 1:
        raise ConfigError(str(path), [f"--node: choose one of {', '.join(config.nodes)}"])
    own = speaker(config, names[0])
    if own is None:
        raise ConfigError(
            str(path), ["bgp: is missing; the LAN is not routed by eBGP, add [bgp] if it is to be"]
        )
    render = frr.render if form == "frr" else bird.render
    return render(own, f"{config.pair.name}-{names[0]}")
