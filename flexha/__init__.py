# SPDX-License-Identifier: Apache-2.0
"""flexha: a userspace NAT gateway pair whose sessions outlive the node that carried them."""
