# SPDX-License-Identifier: Apache-2.0
"""Paddle's old persistables: one file per parameter, named like it. The layout, read without Paddle.

    uint32  version of the variable, 0
    uint64  number of level-of-detail levels, 0 for a parameter
    uint32  version of the tensor, 0
    int32   n
    n bytes a protobuf message: field 1 the data type, field 2 one dimension, repeated
    the rest the values, row by row

All integers little-endian. A parameter that was cut short still has a whole header, and Paddle itself reads such a
file without a word: here the size of every file is held against its header.
"""
from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.util import InputError

_PREFIX = struct.Struct("<IQIi")
_LONGEST_DESCRIPTION = 256      # bytes; a parameter has two dimensions or one: about ten
_DATA_TYPE, _DIMENSION = 0x08, 0x10     # protobuf tags: field 1 and field 2, both varints
# Paddle's data type -> NumPy's; NumPy has no bfloat16: its 16 bits are read and widened by to_float32
_DTYPES = {4: "<f2", 5: "<f4", 6: "<f8", 22: "<u2"}


@dataclass(frozen=True)
class PersistableHeader:
    """The header of one file."""

    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int     # bytes before the first value


def read_header(path: Path) -> PersistableHeader:
    """Header of one persistable, checked against the size of the file.

    Raises:
        InputError: not a persistable, a data type that no parameter has, or more or fewer bytes than it announces.
    """
    with open(path, "rb") as source:
        prefix = source.read(_PREFIX.size)
        if len(prefix) < _PREFIX.size:
            raise InputError(f"{path}: only {len(prefix)} bytes long: the file was cut short; unpack the archive again")
        variable_version, levels, tensor_version, length = _PREFIX.unpack(prefix)
        if variable_version or levels or tensor_version or not 0 < length <= _LONGEST_DESCRIPTION:
            raise InputError(f"{path}: does not begin like a parameter saved by Paddle 1.x; "
                             "give the folder of persistables as it was unpacked")
        data_type, shape = _parse_description(path, source.read(length))
    if data_type not in _DTYPES:
        raise InputError(f"{path}: Paddle data type {data_type} is no floating-point parameter")
    header = PersistableHeader(np.dtype(_DTYPES[data_type]), shape, _PREFIX.size + length)
    wanted = header.offset + math.prod(shape) * header.dtype.itemsize
    found = path.stat().st_size
    if found != wanted:
        raise InputError(f"{path}: {found} bytes, but its header {list(shape)} announces {wanted}: "
                         "the file is damaged or cut short; unpack the archive again")
    return header


def _parse_description(path: Path, description: bytes) -> tuple[int, tuple[int, ...]]:
    """(data type, dimensions) of the protobuf message."""
    data_type, dimensions, position = -1, [], 0
    try:
        while position < len(description):
            tag = description[position]
            value, position = _varint(description, position + 1)
            if tag == _DATA_TYPE:
                data_type = value
            elif tag == _DIMENSION:
                dimensions.append(value)
            else:
                raise InputError(f"{path}: the description of the tensor has an unknown field ({tag:#x}); "
                                 "is this a parameter saved by Paddle?")
    except IndexError:
        raise InputError(f"{path}: the description of the tensor is cut short; unpack the archive again") from None
    return data_type, tuple(dimensions)


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """(value, next position): seven bits a byte, lowest first, the top bit says that more follow."""
    value, shift = 0, 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position


def read_persistable(path: Path) -> np.ndarray:
    """Values of one persistable, float32 in the shape that its header gives.

    Raises:
        InputError: as :func:`read_header`.
    """
    header = read_header(path)
    values = np.fromfile(path, dtype=header.dtype, offset=header.offset)
    return to_float32(values).reshape(header.shape)


def to_float32(values: np.ndarray) -> np.ndarray:
    """Floating-point values, or the 16 bits of bfloat16 as unsigned integers, as float32."""
    if values.dtype == np.uint16:
        return (values.astype("<u4") << 16).view("<f4")
    return values.astype(np.float32, copy=False)
