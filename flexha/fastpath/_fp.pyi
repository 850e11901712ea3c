# SPDX-License-Identifier: Apache-2.0
# The extension that csrc/ffi_build.py makes; flexha.fastpath.lib gives its functions their types.
from typing import Any

ffi: Any
lib: Any
