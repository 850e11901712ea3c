# SPDX-License-Identifier: Apache-2.0
"""The configuration: schema, loading, checking, and what each part is told of it."""
