# SPDX-License-Identifier: Apache-2.0
"""The HA core, sans-I/O: functions of (state, event, now) to (state, actions). ``node`` is its door."""
