"""The CUDA C++ behind the CuPy backend, as strings: this file needs neither CuPy nor a GPU.

In every source `T` stands for float or double. Constants are written T(0.5), as 0.5 alone is a
double and would pull float arithmetic up to it, which many GPUs do at 1/32 of the speed.

Two kinds of kernel:

- ELEMENTWISE: one expression for one element. CuPy writes the loop around it, reads the arrays by
  their strides, and broadcasts.
- ROWS: one block of threads for one row of a C-contiguous (rows, n) matrix. Thread t takes the
  entries t, t + blockDim, t + 2 blockDim, ... and a row's sum or maximum is a tree over the
  threads' own sums, in shared memory. Nothing depends on the width of a warp, so that the tests
  can run the same sources on a CPU, one thread after the other.
"""

from __future__ import annotations

from typing import NamedTuple

C_TYPES = {"float32": "float", "float64": "double"}
MAX_THREADS = 256  # threads of a block, and the length of its shared memory


class Elementwise(NamedTuple):
    """A kernel in CuPy's terms: parameters that go in and come out, and what is done between."""

    inputs: str
    outputs: str
    body: str


SIGMOID = """
// 1 / (1 + e^-x) without overflow: exp is only taken of numbers <= 0.
template <typename F>
__device__ F stable_sigmoid(F x) {
    F small = exp(-fabs(x));
    return (x >= F(0) ? F(1) : small) / (F(1) + small);
}
"""

ELEMENTWISE = {
    # x < 0 is false for NaN, which therefore stays NaN as in np.maximum
    "relu": Elementwise("T x", "T y", "y = x < T(0) ? T(0) : x;"),
    "relu_backward": Elementwise("T dy, T x", "T dx", "dx = dy * T(x > T(0));"),
    "quick_gelu": Elementwise("T x", "T y", "y = x * stable_sigmoid(T(1.702) * x);"),
    "quick_gelu_backward": Elementwise(
        "T dy, T x",
        "T dx",
        """
        T s = stable_sigmoid(T(1.702) * x);
        dx = dy * (s + x * (T(1.702) * s * (T(1) - s)));
        """,
    ),
    "gelu": Elementwise(
        "T x", "T y", "y = x * (T(0.5) + T(0.5) * erf(x * T(0.70710678118654752)));  // 1/sqrt(2)"
    ),
    "gelu_backward": Elementwise(
        "T dy, T x",
        "T dx",
        """
        T phi = T(0.5) + T(0.5) * erf(x * T(0.70710678118654752));
        T density = exp(T(-0.5) * x * x) * T(0.39894228040143268);  // 1/sqrt(2 pi)
        dx = dy * (phi + x * density);
        """,
    ),
    "gelu_tanh": Elementwise(
        "T x",
        "T y",
        """
        T inner = T(0.79788456080286536) * (x + T(0.044715) * x * x * x);  // sqrt(2/pi)
        y = T(0.5) * x * (T(1) + tanh(inner));
        """,
    ),
    "gelu_tanh_backward": Elementwise(
        "T dy, T x",
        "T dx",
        """
        T t = tanh(T(0.79788456080286536) * (x + T(0.044715) * x * x * x));
        T dinner = T(0.79788456080286536) * (T(1) + T(0.134145) * x * x);  // 3 * 0.044715
        dx = dy * (T(0.5) * (T(1) + t) + T(0.5) * x * (T(1) - t * t) * dinner);
        """,
    ),
    "erf": Elementwise("T x", "T y", "y = erf(x);"),
}

REDUCTIONS = """
// The sum of `mine` over the threads of the block; every thread gets it. blockDim.x: a power of 2.
__device__ T block_sum(T mine, T* shared) {
    shared[threadIdx.x] = mine;
    __syncthreads();
    for (unsigned int apart = blockDim.x / 2; apart > 0; apart /= 2) {
        if (threadIdx.x < apart) shared[threadIdx.x] += shared[threadIdx.x + apart];
        __syncthreads();
    }
    T total = shared[0];
    __syncthreads();  // nobody writes the next reduction before everybody has read this one
    return total;
}

// The same for the maximum.
__device__ T block_max(T mine, T* shared) {
    shared[threadIdx.x] = mine;
    __syncthreads();
    for (unsigned int apart = blockDim.x / 2; apart > 0; apart /= 2) {
        if (threadIdx.x < apart && shared[threadIdx.x + apart] > shared[threadIdx.x])
            shared[threadIdx.x] = shared[threadIdx.x + apart];
        __syncthreads();
    }
    T largest = shared[0];
    __syncthreads();
    return largest;
}
"""

ROWS = {
    "softmax": """
extern "C" __global__ void softmax_rows(const T* x, T* y, long long n) {
    __shared__ T shared[256];
    x += blockIdx.x * n;
    y += blockIdx.x * n;
    T largest = x[0];
    for (long long j = threadIdx.x; j < n; j += blockDim.x)
        if (x[j] > largest) largest = x[j];
    largest = block_max(largest, shared);
    T sum = T(0);
    for (long long j = threadIdx.x; j < n; j += blockDim.x) {
        y[j] = exp(x[j] - largest);
        sum += y[j];
    }
    sum = block_sum(sum, shared);
    for (long long j = threadIdx.x; j < n; j += blockDim.x) y[j] /= sum;
}
""",
    "softmax_backward": """
extern "C" __global__ void softmax_backward_rows(const T* dy, const T* y, T* dx, long long n) {
    __shared__ T shared[256];
    dy += blockIdx.x * n;
    y += blockIdx.x * n;
    dx += blockIdx.x * n;
    T along_y = T(0);
    for (long long j = threadIdx.x; j < n; j += blockDim.x) along_y += dy[j] * y[j];
    along_y = block_sum(along_y, shared);
    for (long long j = threadIdx.x; j < n; j += blockDim.x) dx[j] = y[j] * (dy[j] - along_y);
}
""",
    "layer_norm": """
extern "C" __global__ void layer_norm_rows(
        const T* x, const T* weight, const T* bias, T* y, T* mean, T* inv_std,
        double eps, long long n) {
    __shared__ T shared[256];
    x += blockIdx.x * n;
    y += blockIdx.x * n;
    T sum = T(0);
    for (long long j = threadIdx.x; j < n; j += blockDim.x) sum += x[j];
    T mu = block_sum(sum, shared) / T(n);
    T squares = T(0);  // of x - mean: the difference of two large squares would lose all digits
    for (long long j = threadIdx.x; j < n; j += blockDim.x) squares += (x[j] - mu) * (x[j] - mu);
    T var = block_sum(squares, shared) / T(n);
    T scale = T(1) / sqrt(var + T(eps));
    for (long long j = threadIdx.x; j < n; j += blockDim.x)
        y[j] = (x[j] - mu) * scale * weight[j] + bias[j];
    if (threadIdx.x == 0) {
        mean[blockIdx.x] = mu;
        inv_std[blockIdx.x] = scale;
    }
}
""",
    "layer_norm_backward": """
extern "C" __global__ void layer_norm_backward_rows(
        const T* dy, const T* x, const T* weight, const T* mean, const T* inv_std, T* dx,
        long long n) {
    __shared__ T shared[256];
    dy += blockIdx.x * n;
    x += blockIdx.x * n;
    dx += blockIdx.x * n;
    T mu = mean[blockIdx.x], scale = inv_std[blockIdx.x];
    T along_one = T(0), along_x_hat = T(0);
    for (long long j = threadIdx.x; j < n; j += blockDim.x) {
        T dx_hat = dy[j] * weight[j];
        along_one += dx_hat;
        along_x_hat += dx_hat * ((x[j] - mu) * scale);
    }
    along_one = block_sum(along_one, shared) / T(n);
    along_x_hat = block_sum(along_x_hat, shared) / T(n);
    for (long long j = threadIdx.x; j < n; j += blockDim.x) {
        T x_hat = (x[j] - mu) * scale;
        dx[j] = scale * (dy[j] * weight[j] - along_one - x_hat * along_x_hat);
    }
}
""",
    "l2_normalize": """
extern "C" __global__ void l2_normalize_rows(
        const T* x, T* y, T* inv_norm, double eps, long long n) {
    __shared__ T shared[256];
    x += blockIdx.x * n;
    y += blockIdx.x * n;
    T largest = T(0);
    for (long long j = threadIdx.x; j < n; j += blockDim.x)
        if (fabs(x[j]) > largest) largest = fabs(x[j]);
    largest = block_max(largest, shared);
    T inv_largest = largest <= T(eps) ? T(0) : T(1) / largest;  // 0: a row without direction
    T squares = T(0);
    for (long long j = threadIdx.x; j < n; j += blockDim.x) {
        T scaled = x[j] * inv_largest;  // in [-1, 1]: its square does not overflow
        squares += scaled * scaled;
    }
    T length = sqrt(block_sum(squares, shared));  // 1 to sqrt(n), NaN, or 0
    T inv_length = length == T(0) ? T(0) : T(1) / length;
    for (long long j = threadIdx.x; j < n; j += blockDim.x) y[j] = x[j] * inv_largest * inv_length;
    if (threadIdx.x == 0) inv_norm[blockIdx.x] = inv_largest * inv_length;
}
""",
    "l2_normalize_backward": """
extern "C" __global__ void l2_normalize_backward_rows(
        const T* dy, const T* y, const T* inv_norm, T* dx, long long n) {
    __shared__ T shared[256];
    dy += blockIdx.x * n;
    y += blockIdx.x * n;
    dx += blockIdx.x * n;
    T inverse = inv_norm[blockIdx.x], along_y = T(0);
    for (long long j = threadIdx.x; j < n; j += blockDim.x) along_y += dy[j] * y[j];
    along_y = block_sum(along_y, shared);
    for (long long j = threadIdx.x; j < n; j += blockDim.x)
        dx[j] = inverse * (dy[j] - y[j] * along_y);
}
""",
}


def row_source(op: str, dtype: str) -> str:
    """The whole source of one row kernel, called `{op}_rows`, for "float32" or "float64"."""
    return f"typedef {C_TYPES[dtype]} T;\n{REDUCTIONS}{ROWS[op]}"


def threads_for(n: int) -> int:
    """Threads of a block that shares a row of n entries: a power of two, 32 to MAX_THREADS."""
    threads = 32
    while threads < min(n, MAX_THREADS):
        threads *= 2
    return threads
