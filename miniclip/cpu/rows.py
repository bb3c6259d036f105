"""Loops over the numbers of one row, which the backend and the plans share.

Kernels neither allocate nor check bounds: the shapes are the caller's care. A NumPy expression
walks through memory once per operator; a kernel does all operators on a row while the row is in the
first cache. Rows are changed in place, under one name: a loop over two arrays that may overlap is
checked for overlap each time it starts, and one that does overlap takes the slow road.
"""

from __future__ import annotations

import numpy as np

from miniclip.cpu.jit import entry_kernel, kernel
from miniclip.cpu.scalars import Real, exp_of_negative, order, unorder
from miniclip.ops.array import Array


@kernel
def largest_of(row: Array) -> Real:
    """The largest entry, -inf of none; a positive NaN counts as larger than all."""
    place = order(row.dtype.type(-np.inf))
    for j in range(row.shape[0]):
        place = max(place, order(row[j]))
    return unorder(place)


@entry_kernel
def exponentials(row: Array, largest: Real) -> None:
    """row = e^(row - largest)."""
    for j in range(row.shape[0]):
        row[j] = exp_of_negative(row[j] - largest)


@entry_kernel
def scale_and_mask(row: Array, scale: Real, mask: Array) -> None:
    """row = scale row + mask. Both (N,)."""
    for j in range(row.shape[0]):
        row[j] = row[j] * scale + mask[j]


@kernel
def softmax_row(row: Array) -> None:
    """row = softmax(row)."""
    real = row.dtype.type
    exponentials(row, largest_of(row))
    total = real(0)
    for j in range(row.shape[0]):
        total += row[j]
    share = real(1) / total
    for j in range(row.shape[0]):
        row[j] *= share


@kernel
def softmax_row_backward(dy: Array, y: Array, scale: Real) -> None:
    """dy = scale y (dy - sum dy y), in place of dy. Both (N,)."""
    along_y = y.dtype.type(0)
    for j in range(y.shape[0]):
        along_y += dy[j] * y[j]
    for j in range(y.shape[0]):
        dy[j] = scale * y[j] * (dy[j] - along_y)


@kernel
def layer_norm_row(x: Array, weight: Array, bias: Array, eps: Real, y: Array) -> tuple[Real, Real]:
    """y = (x - mean) inv_std weight + bias; y may be x. Returns mean and inv_std."""
    real = x.dtype.type
    width = real(x.shape[0])
    total = real(0)
    for j in range(x.shape[0]):
        total += x[j]
    mean = total / width
    squares = real(0)
    for j in range(x.shape[0]):
        squares += (x[j] - mean) * (x[j] - mean)
    inv_std = real(1) / np.sqrt(squares / width + eps)
    for j in range(x.shape[0]):
        y[j] = (x[j] - mean) * inv_std * weight[j] + bias[j]
    return mean, inv_std
