# SPDX-License-Identifier: Apache-2.0
"""BIRD's configuration for one node (``bird.conf``, BIRD 2).

What a node announces stands there twice, as two protocols: ``flexha_other`` always, and ``flexha_active``,
which is preferred to it, while it is enabled: ``birdc enable flexha_active`` says that this node is ACTIVE.
"""

from __future__ import annotations

from typing import Final

from flexha.config.bgp import MED_ACTIVE, MED_OTHER, PREPENDED, Speaker

ACTIVE: Final = "flexha_active"
OTHER: Final = "flexha_other"


def _announced(name: str, speaker: Speaker, *, active: bool) -> list[str]:
    """Routes that are only there to be announced: none of them goes to the kernel."""
    bgp = speaker.bgp
    if bgp.metric == "med":
        attributes = f"bgp_med = {MED_ACTIVE if active else MED_OTHER};"
    else:
        attributes = "" if active else " ".join([f"bgp_path.prepend({bgp.local_as});"] * PREPENDED)
    return [
        f"protocol static {name} {{",
        *(["\tdisabled;"] if active else []),
        f"\tipv4 {{ preference {210 if active else 200}; }};",
        *(
            f"\troute {prefix} blackhole" + (f" {{ {attributes} }};" if attributes else ";")
            for prefix in speaker.announced
        ),
        "}",
    ]


def render(speaker: Speaker, hostname: str) -> str:
    """``bird.conf``, for a node that is not ACTIVE: so it starts."""
    bgp = speaker.bgp
    accepted = ", ".join(f"{prefix}{{{prefix.prefixlen},32}}" for prefix in speaker.accepted)
    lines = [
        f"# {hostname}: made by flexhactl routing show-config --format bird",
        f"router id {speaker.router_id};",
        "protocol device { scan time 1; }",
        "protocol kernel { ipv4 { import none; export where source = RTS_BGP; }; }",
        *_announced(ACTIVE, speaker, active=True),
        *_announced(OTHER, speaker, active=False),
    ]
    if bgp.bfd:
        lines += [
            "protocol bfd {",
            f'\tinterface "*" {{ interval {bgp.bfd.interval_ms} ms; multiplier {bgp.bfd.multiplier}; }};',
            "}",
        ]
    for number, router in enumerate(speaker.neighbours, 1):
        lines += [
            f"protocol bgp router{number} {{",
            f"\tlocal as {bgp.local_as};",
            f"\tneighbor {router} as {bgp.router_as};",
            f"\thold time {bgp.hold_s};",
            f"\tconnect retry time {bgp.connect_s};",
            *(["\tbfd on;"] if bgp.bfd else []),
            "\tipv4 {",
            f"\t\timport where net ~ [ {accepted} ];",
            "\t\texport where source = RTS_STATIC;",
            "\t};",
            "}",
        ]
    return "\n".join(lines) + "\n"
