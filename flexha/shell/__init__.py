# SPDX-License-Identifier: Apache-2.0
"""The daemon around the pure core: the only code with an event loop, sockets, clocks and files."""
