"""A pretend GPU array: answers what CuPy answers, and refuses to meet a host array.

The textbook is also the GPU fallback, so every op must run on arrays that live elsewhere. This
class proves it on a machine without a GPU: it wraps a NumPy array, never converts back by itself,
raises when a host array comes near, and knows only the functions that CuPy has.
"""

import numpy as np

# The NumPy names that CuPy has too; checked against `dir(cupy)` wherever CuPy can be imported.
CUPY_FUNCTIONS = frozenset(
    "abs absolute add arange argmax broadcast_to ceil clip concatenate cos divide equal exp "
    "expand_dims floor greater greater_equal invert isfinite less less_equal log log1p "
    "logical_and bitwise_and matmul max maximum mean min minimum multiply negative not_equal ones "
    "power prod reciprocal repeat reshape sin sqrt square stack subtract sum swapaxes tanh "
    "transpose true_divide unique var where zeros zeros_like empty full".split()
)
METHODS = set(
    "any all argmax astype copy max mean min reshape squeeze sum swapaxes transpose".split()
)


class FakeGpu(np.lib.mixins.NDArrayOperatorsMixin):
    def __init__(self, host):
        self.host = host  # what a real GPU array would hold in its own memory

    shape = property(lambda self: self.host.shape)
    dtype = property(lambda self: self.host.dtype)
    ndim = property(lambda self: self.host.ndim)
    size = property(lambda self: self.host.size)
    T = property(lambda self: FakeGpu(self.host.T))

    def __array__(self, *args, **kwargs):
        raise TypeError("a GPU array was converted to a host array")

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        if method != "__call__" or ufunc.__name__ not in CUPY_FUNCTIONS:
            raise TypeError(f"CuPy has no {ufunc.__name__}.{method} behind NumPy's call")
        return _wrap(ufunc(*_unwrap(inputs), **_unwrap(kwargs)))

    def __array_function__(self, func, types, args, kwargs):
        if func.__name__ not in CUPY_FUNCTIONS:
            raise TypeError(f"CuPy does not answer np.{func.__name__}")
        return _wrap(func(*_unwrap(args), **_unwrap(kwargs)))

    def __getattr__(self, name):
        if name not in METHODS:
            raise AttributeError(f"FakeGpu has no {name}")
        method = getattr(self.host, name)
        return lambda *args, **kwargs: _wrap(method(*_unwrap(args), **_unwrap(kwargs)))

    def __getitem__(self, key):
        return _wrap(self.host[_unwrap(key)])

    def __setitem__(self, key, value):
        self.host[_unwrap(key)] = _unwrap(value)

    def __len__(self):
        return len(self.host)

    def __bool__(self):
        return bool(self.host)

    def __float__(self):
        return float(self.host)

    def __int__(self):
        return int(self.host)


def _unwrap(value):
    """The host arrays inside, for NumPy to work on; a host array among the arguments is refused."""
    if isinstance(value, FakeGpu):
        return value.host
    if isinstance(value, np.ndarray | np.generic):
        raise TypeError(f"a host array of shape {value.shape} met a GPU array")
    if isinstance(value, tuple | list):
        return type(value)(_unwrap(item) for item in value)
    if isinstance(value, dict):
        return {name: _unwrap(item) for name, item in value.items()}
    return value


def _wrap(value):
    """Every array, also of 0 dimensions, that comes out lives on the GPU again."""
    if isinstance(value, np.ndarray | np.generic):
        return FakeGpu(np.asarray(value))
    if isinstance(value, tuple):
        return tuple(_wrap(item) for item in value)
    return value
