# SPDX-License-Identifier: GPL-2.0-only
"""Collects the values of a dictionary column over all batches of a recording."""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from iorec.store.arrow import strings_to_arrow, to_arrow


@dataclass
class NameColumn:
    """The values of one column in the order of their first use."""

    values: list[str] = field(default_factory=list)
    _codes: dict[str, int] = field(default_factory=dict)

    def code(self, value: str | None) -> int:
        """The value's place, appended if it is new; -1 for None."""
        if value is None:
            return -1
        code = self._codes.setdefault(value, len(self.values))
        if code == len(self.values):
            self.values.append(value)
        return code

    def encode(self, codes: NDArray[np.int32]) -> pa.DictionaryArray:
        """A dictionary array; code -1 is null."""
        indices = to_arrow(codes, codes < 0)
        return pa.DictionaryArray.from_arrays(indices, strings_to_arrow(self.values))
