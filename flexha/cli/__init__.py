# SPDX-License-Identifier: Apache-2.0
"""``flexhactl``; it speaks to the control socket only."""
