# %% [markdown]
# # Part 2: The chain rule on arrays
#
# A network is a chain of functions on arrays. Training it needs one more chain, which runs the
# other way and carries gradients. You write its most important links by hand: broadcasting, the
# linear layer, QuickGELU, softmax and LayerNorm. You also write the tool that tells you whether a
# gradient is right. At the end a trained CLIP runs on your functions, and shows you what it looks
# at.
#
# | | |
# |---|---|
# | to read | 35 minutes |
# | to do | 75 minutes: six exercises of 3 to 10 lines |
# | you need | Python, NumPy arrays, the derivative of a product and of $e^x$ |
# | the real thing | [miniclip/ops](../miniclip/ops/README.md), derived in [docs/ops](../docs/ops/README.md) |
# | the paper | CLIP, [arXiv 2103.00020](https://arxiv.org/abs/2103.00020), section 2.4: the encoders that are made of these functions |
#
# Before each exercise an example is printed: arguments, and what PyTorch gives for them. Each
# check prints one line: that your function is right, or which term of it is wrong. Try as often as
# you like. The answers are in [solutions](../notebooks/solutions/02-chain-rule.ipynb).

# %% tags=["setup"]
import numpy as np

from miniclip.course import check, predicted

SEED = 0

# %% [markdown]
# ## One rule
#
# $L$ is a number, the loss. For every array $x$ that it depends on, write $dx$ for the array of
# the same shape whose entries are $\partial L / \partial x_i$. If $x$ changes a little, by
# $\delta x$, then
#
# $$ \delta L = \sum_i dx_i \delta x_i . $$
#
# That is all we need. A function $y = f(x)$ is somewhere in the chain, and the part of the chain
# behind it has already told us $dy$. We know $\delta L = \sum_j dy_j \delta y_j$. Write $\delta y$
# in terms of $\delta x$, collect everything that multiplies $\delta x_i$, and that is $dx_i$. A
# **backward pass** is a function that takes $dy$ and returns $dx$. It never needs to know what $L$
# is.
#
# Two consequences are worth remembering. $dx$ has the shape of $x$, always. And where a number of
# $x$ is used in several places, its gradient is the **sum** over these places.

# %% [markdown]
# ## 1. Broadcasting
#
# When NumPy adds a bias of shape (3,) to an array of shape (2, 3), it uses every number of the
# bias twice. So the gradient of the bias is a sum over two rows.
#
# **Predict** (2 minutes). Here is $dy$, the gradient of `x + bias`. Write the gradient of `bias`
# before you run the cell.

# %%
rng = np.random.default_rng(SEED)
dy = rng.integers(-4, 5, (2, 3))
print(dy)

# %% tags=["predict"]
guess = dy.sum(axis=0)  # SOLUTION
predicted(guess, dy.sum(axis=0))

# %% [markdown]
# ### Exercise 1: `sum_to_shape`
#
# 10 minutes. Difficulty 2 of 5, importance 4 of 5.
#
# An array `x` of shape `shape` was broadcast to the shape of `dy`. Return the gradient of `x`.
# Broadcasting does two things: it adds axes in front, and it stretches axes of length 1. Both are
# undone by a sum.
#
# | `dy` | `shape` | to do |
# |---|---|---|
# | (2, 3, 4) | (4,) | sum over axes 0 and 1 |
# | (2, 3, 4) | (3, 1) | sum over axes 0 and 2; keep the second as an axis of length 1 |
# | (2, 3, 4) | (2, 3, 4) | nothing |
#
# <details><summary>Hint</summary>First sum over axis 0 as long as there are too many axes. Then
# look at each axis where <code>shape</code> has a 1, and sum with
# <code>keepdims=True</code>.</details>


# %%
print(check.sum_to_shape.example)


# %% tags=["exercise"]
def sum_to_shape(dy, shape):
    """The gradient of an array that was broadcast.

    dy: an array. shape: that of the array before broadcasting, a tuple. Returns dx of this shape.
    """
    # BEGIN SOLUTION
    dx = dy
    while dx.ndim > len(shape):  # axes that were added in front
        dx = dx.sum(axis=0)
    for axis, n in enumerate(shape):
        if n == 1:  # an axis that was stretched
            dx = dx.sum(axis=axis, keepdims=True)
    return dx
    # END SOLUTION


# %% tags=["right"]
def sum_to_shape(dy, shape):
    lead = dy.ndim - len(shape)
    axes = tuple(range(lead)) + tuple(lead + i for i, n in enumerate(shape) if n == 1)
    return dy.sum(axis=axes).reshape(shape)


# %% tags=["right"]
def sum_to_shape(dy, shape):
    dx = np.zeros(shape, dy.dtype)
    padded = (1,) * (dy.ndim - len(shape)) + tuple(shape)
    for place in np.ndindex(dy.shape):
        home = [0 if n == 1 else i for i, n in zip(place, padded, strict=True)]
        dx[tuple(home[dy.ndim - len(shape) :])] += dy[place]
    return dx


# %% tags=["wrong"]
WRONG = [
    ("dx = dx.sum(axis=0)", "dx = dx.mean(axis=0)", "the mean along the axes that were added"),
    ("dx = dx.sum(axis=0)", "dx = dx[0]", "the first entry along the axes that were added"),
    (", keepdims=True", "", "the right numbers in another shape"),
    ("if n == 1:", "if False:", "has shape"),
    (
        "dx.sum(axis=axis, keepdims=True)",
        "dx.max(axis=axis, keepdims=True)",
        "the largest along the axes that were stretched",
    ),
    ("return dx", "return -dx", "the opposite sign"),
    ("dx = dy\n", "return np.resize(dy, shape)\n", "the first entry"),
    ("dx = dx.sum(axis=0)", "dx = dx.sum(axis=-1)", "has shape"),
]

# %% tags=["check"]
check.sum_to_shape(sum_to_shape, seed=SEED)

# %% [markdown]
# In miniclip this is [`sum_to_last`](../miniclip/ops/array.py), for the case that CLIP needs most:
# a bias, or a weight of LayerNorm, that all rows share.

# %% [markdown]
# ## 2. Is a gradient right?
#
# You could believe your derivation. Better is to measure. Move one number of $x$ by a small step
# $h$ in both directions, and see by how much the loss changes:
#
# $$ dx_i \approx \frac{L(x + h e_i) - L(x - h e_i)}{2h} . $$
#
# Why in both directions? By Taylor's formula
# $L(x + h) = L + h L' + \frac12 h^2 L'' + \frac16 h^3 L''' + \ldots$. In the difference of both
# sides the terms with $h^2$ cancel. What is left is an error in proportion to $h^2$. With one side
# alone it is in proportion to $h$.
#
# **Predict** (3 minutes). The slope of $x^3$ at 1 is 3. With the step $h$ that the next cell
# prints, what does $(L(1 + h) - L(1)) / h$ give? And $(L(1 + h) - L(1 - h)) / (2h)$? A calculator
# is allowed.

# %%
h = int(rng.integers(1, 5)) / 10
print("h =", h)

# %% tags=["predict"]
one_sided, two_sided = 3 + 3 * h + h**2, 3 + h**2  # SOLUTION
predicted(one_sided, ((1 + h) ** 3 - 1) / h)
predicted(two_sided, ((1 + h) ** 3 - (1 - h) ** 3) / (2 * h))

# %% [markdown]
# ### Exercise 2: `measured_gradient`
#
# 10 minutes. Difficulty 2 of 5, importance 5 of 5: with it you can check everything that follows.
#
# <details><summary>Hint</summary><code>for place in np.ndindex(x.shape):</code> visits all
# entries, and <code>x[place]</code> is one number. Move a copy of <code>x</code>, not
# <code>x</code> itself: it is not yours.</details>


# %% tags=["exercise"]
def measured_gradient(loss, x, step):
    """The gradient of a loss by central differences.

    loss: a function of an array, which returns a number. x: an array of any shape. step: a number.
    Returns the gradient, in the shape of x.
    """
    # BEGIN SOLUTION
    gradient = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        ahead, behind = x.copy(), x.copy()
        ahead[place] += step
        behind[place] -= step
        gradient[place] = (loss(ahead) - loss(behind)) / (2 * step)
    return gradient
    # END SOLUTION


# %% tags=["right"]
def measured_gradient(loss, x, step):
    directions = np.eye(x.size).reshape(x.size, *x.shape)
    slopes = [(loss(x + step * d) - loss(x - step * d)) / (2 * step) for d in directions]
    return np.array(slopes).reshape(x.shape)


# %% tags=["right"]
def measured_gradient(loss, x, step):
    def slope(i, h):
        e = np.zeros(x.size)
        e[i] = h
        e = e.reshape(x.shape)
        return (loss(x + e) - loss(x - e)) / (2 * h)

    # of fourth order: the errors of two steps cancel
    best = [(4 * slope(i, step) - slope(i, 2 * step)) / 3 for i in range(x.size)]
    return np.array(best).reshape(x.shape)


# %% tags=["wrong"]
WRONG = [
    ("(loss(ahead) - loss(behind)) / (2 * step)", "(loss(ahead) - loss(x)) / step", "one-sided"),
    ("(loss(ahead) - loss(behind)) / (2 * step)", "(loss(x) - loss(behind)) / step", "one-sided"),
    ("(2 * step)", "step", "between the two points lie 2 step"),
    (" / (2 * step)", "", "not divided by 2 step"),
    ("ahead, behind = x.copy(), x.copy()", "ahead, behind = x, x.copy()", "has written into x"),
    ("loss(ahead) - loss(behind)", "loss(behind) - loss(ahead)", "it has the opposite sign"),
    ("return gradient", "return gradient.ravel()", "has shape"),
    ("(2 * step)", "2 * step", "brackets around 2 * step are missing"),
]

# %% tags=["check"]
check.measured_gradient(measured_gradient, seed=SEED)

# %% [markdown]
# For a large array this is slow: two forward passes for each entry. The check of miniclip moves
# all entries at once, along a random direction $v$, and compares the one slope with
# $\sum_i dx_i v_i$. A wrong gradient passes only if its error is perpendicular to $v$. See
# [`check/gradients.py`](../miniclip/check/gradients.py).

# %% [markdown]
# ## 3. The linear layer
#
# $$ y = x W^\top + b $$
#
# $x$: (..., in), any number of leading axes. $W$: (out, in), as PyTorch stores it. $b$: (out,).
# $y$: (..., out). All rows are treated alike, so take $x$ as a matrix with R rows. A small change
# gives $\delta y = \delta x W^\top + x \delta W^\top + \delta b$. Put it into
# $\delta L = \sum_{r,o} dy_{ro} \delta y_{ro}$ and read off what multiplies $\delta x_{ri}$,
# $\delta W_{oi}$ and $\delta b_o$.
#
# **Predict** (2 minutes). What are the shapes of $dy$, $dW$ and $db$, for the shapes that the next
# cell prints?

# %%
batch, tokens, n_in, n_out = (int(n) for n in rng.permutation(np.arange(2, 9))[:4])
print("x:", (batch, tokens, n_in), "W:", (n_out, n_in))

# %% tags=["predict"]
dy_shape, dw_shape, db_shape = (batch, tokens, n_out), (n_out, n_in), (n_out,)  # SOLUTION
predicted(dy_shape, (batch, tokens, n_out))
predicted(dw_shape, (n_out, n_in))
predicted(db_shape, (n_out,))

# %% [markdown]
# ### Exercise 3: `linear_backward`
#
# 15 minutes. Difficulty 3 of 5, importance 5 of 5.
#
# <details><summary>Hint</summary>Join the leading axes first:
# <code>x.reshape(-1, x.shape[-1])</code>. Then the shapes leave only one product for each
# gradient. The bias was broadcast: which function do you have for that?</details>


# %%
print(check.linear_backward.example)


# %% tags=["exercise"]
def linear_backward(dy, x, weight):
    """The backward pass of y = x @ weight.T + bias.

    dy: (..., out). x: (..., in). weight: (out, in).
    Returns dx (..., in), dweight (out, in), dbias (out,).
    """
    # BEGIN SOLUTION
    rows = x.reshape(-1, x.shape[-1])  # (R, in)
    drows = dy.reshape(-1, dy.shape[-1])  # (R, out)
    dx = dy @ weight  # (..., out) @ (out, in) -> (..., in)
    dweight = drows.T @ rows  # (out, R) @ (R, in) -> (out, in)
    dbias = drows.sum(axis=0)
    return dx, dweight, dbias
    # END SOLUTION


# %% tags=["right"]
def linear_backward(dy, x, weight):
    dx = np.einsum("...o,oi->...i", dy, weight)
    rows = (-1, dy.shape[-1]), (-1, x.shape[-1])
    dweight = np.einsum("ro,ri->oi", dy.reshape(rows[0]), x.reshape(rows[1]))
    return dx, dweight, np.einsum("ro->o", dy.reshape(rows[0]))


# %% tags=["right"]
def linear_backward(dy, x, weight):
    dx, dweight = np.zeros_like(x), np.zeros_like(weight)
    dbias = np.zeros_like(weight[:, 0])
    for row in np.ndindex(x.shape[:-1]):
        for o in range(len(weight)):
            dx[row] += dy[row][o] * weight[o]
            dweight[o] += dy[row][o] * x[row]
            dbias[o] += dy[row][o]
    return dx, dweight, dbias


# %% tags=["wrong"]
WRONG = [
    ("dweight = drows.T @ rows", "dweight = rows.T @ drows", "transposed"),
    ("drows.sum(axis=0)", "drows.mean(axis=0)", "of the right one ("),
    ("drows.T @ rows", "drows.T @ rows / len(rows)", "of the right one ("),
    ("dbias = drows.sum(axis=0)", "dbias = dy", "not summed"),
    ("dx = dy @ weight", "dx = -dy @ weight", "the opposite sign"),
    ("drows.T @ rows", "drows.reshape(drows.shape[::-1]) @ rows", "has to be transposed"),
    ("dbias = drows.sum(axis=0)", "dbias = dy[0]", "has shape"),
    ("drows.T @ rows", "dy[0].T @ x[0]", "raised"),
    ("return dx, dweight, dbias", "return dx, dweight", "2 values"),
    ("dbias = drows.sum(axis=0)", "dbias = np.full(len(weight), len(rows) + 0 * dy.max())",
     "dy is not used"),
]  # fmt: skip

# %% tags=["check"]
check.linear_backward(linear_backward, seed=SEED)

# %% [markdown]
# The real thing: [`ops/linear.py`](../miniclip/ops/linear.py), derived in
# [docs/ops/linear.md](../docs/ops/linear.md). A backward pass makes two matrix products where the
# forward made one. That is why a training step costs about three times a forward pass.

# %% [markdown]
# ## 4. QuickGELU
#
# An activation acts on each number by itself, $y_i = f(x_i)$. So $dx_i = dy_i f'(x_i)$, and the
# only work is to find $f'$. OpenAI's CLIP uses
#
# $$ f(x) = x s(1.702 x) , \qquad s(z) = \frac{1}{1 + e^{-z}} , \qquad s' = s (1 - s) . $$
#
# It is not the GELU that most libraries mean. Both differ by up to 0.02, and a model has to be run
# with the one that it was trained with.
#
# **Predict** (1 minute). What is $f'(0)$?

# %% tags=["predict"]
guess = 0.5  # SOLUTION
predicted(guess, 0.5)

# %% [markdown]
# ### Exercise 4: `quick_gelu_backward`
#
# 10 minutes. Difficulty 2 of 5, importance 3 of 5. The product rule, and the chain rule inside it.


# %%
print(check.quick_gelu_backward.example)


# %% tags=["exercise"]
def quick_gelu_backward(dy, x):
    """The backward pass of y = x * sigmoid(1.702 * x).

    dy, x: any shape, the same. Returns dx of this shape.
    """
    # BEGIN SOLUTION
    s = 1 / (1 + np.exp(-1.702 * x))
    slope = s + x * 1.702 * s * (1 - s)
    return dy * slope
    # END SOLUTION


# %% tags=["right"]
def quick_gelu_backward(dy, x):
    s = 0.5 * (1 + np.tanh(0.851 * x))
    return dy * s * (1 + 1.702 * x * (1 - s))


# %% tags=["right"]
def quick_gelu_backward(dy, x):
    dx = np.empty_like(x)
    for place in np.ndindex(x.shape):
        e = np.exp(-1.702 * x[place])
        dx[place] = dy[place] * (1 / (1 + e) + 1.702 * x[place] * e / (1 + e) ** 2)
    return dx


# %% tags=["wrong"]
WRONG = [
    ("x * 1.702 * s", "x * s", "without the inner slope"),
    ("-1.702 * x", "-x", "for s(1.702 x)"),
    (" + x * 1.702 * s * (1 - s)", "", "1.702 x s (1 - s), is missing"),
    ("slope = s + x", "slope = s - x", "has the opposite sign"),
    ("s * (1 - s)", "s", "with s for s (1 - s)"),
    ("slope = s + x", "slope = x", "the first term of the product rule, s(1.702 x), is missing"),
    ("return dy * slope", "return slope", "it does not depend on dy"),
    ("return dy * slope", "return dy * x * s", "not times the slope of y"),
    ("+ x * 1.702 * s", "+ 1.702 * s", "without x in the second term"),
]

# %% tags=["check"]
check.quick_gelu_backward(quick_gelu_backward, seed=SEED)

# %% [markdown]
# **Look.** Below about $-0.75$ the slope is negative: QuickGELU falls before it rises.

# %% tags=["look"]
import matplotlib.pyplot as plt

x = np.linspace(-5, 3, 200)
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
axes.plot(x, x / (1 + np.exp(-1.702 * x)), label="QuickGELU")
axes.plot(x, quick_gelu_backward(np.ones_like(x), x), label="its slope, by your function")
axes.axhline(0, color="grey", linewidth=0.5)
axes.set_xlabel("x")
axes.legend()
plt.show()

# %% [markdown]
# ## 5. Softmax
#
# $$ y_i = \frac{e^{x_i}}{\sum_k e^{x_k}} $$
#
# for each row of $x$: (..., N). It makes weights of scores: positive numbers that sum to 1. Unlike
# an activation it mixes the numbers of a row. Each $x_i$ acts in two ways: directly on $y_i$, and
# through the sum on all of the row. The quotient rule gives
#
# $$ \delta y_i = y_i \Big( \delta x_i - \sum_k y_k \delta x_k \Big) . $$
#
# Put this into $\delta L = \sum_i dy_i \delta y_i$ and collect what multiplies $\delta x_i$.
#
# **Predict** (2 minutes). Adding the same number to all of $x$ does not change $y$. So what is the
# sum of $dx$ over a row, whatever $dy$ is?

# %% tags=["predict"]
guess = 0  # SOLUTION
predicted(guess, 0)

# %% [markdown]
# ### Exercise 5: `softmax_backward`
#
# 10 minutes. Difficulty 3 of 5, importance 5 of 5: attention and the loss both need it. Softmax's
# backward needs $y$ alone, so you are given $y$ and not $x$. Do not build the N x N matrix of
# derivatives.


# %%
print(check.softmax_backward.example)


# %% tags=["exercise"]
def softmax_backward(dy, y):
    """The backward pass of y = softmax(x) over the last axis.

    dy, y: (..., N). Returns dx (..., N).
    """
    # BEGIN SOLUTION
    along = (dy * y).sum(axis=-1, keepdims=True)  # (..., 1)
    return y * (dy - along)
    # END SOLUTION


# %% tags=["right"]
def softmax_backward(dy, y):
    diagonal = np.einsum("...i,ij->...ij", y, np.eye(y.shape[-1], dtype=y.dtype))
    jacobian = diagonal - np.einsum("...i,...j->...ij", y, y)
    return np.einsum("...i,...ij->...j", dy, jacobian)


# %% tags=["right"]
def softmax_backward(dy, y):
    dx = np.zeros_like(y)
    for row in np.ndindex(y.shape[:-1]):
        for i in range(y.shape[-1]):
            for k in range(y.shape[-1]):
                dx[row][i] += dy[row][k] * y[row][k] * ((i == k) - y[row][i])
    return dx


# %% tags=["wrong"]
WRONG = [
    ("dy - along", "dy", "the path through the sum (- y sum(dy y)) is missing"),
    ("dy - along", "dy + along", "the path through the sum (- y sum(dy y)) has the opposite sign"),
    ("(dy * y).sum(axis=-1", "dy.sum(axis=-1", "with sum(dy) for sum(dy y)"),
    ("(dy * y).sum(axis=-1", "(dy * y).mean(axis=-1", "1/"),
    ("(dy * y).sum(axis=-1, keepdims=True)", "(dy * y).sum()", "over the whole array"),
    ("(dy * y).sum(axis=-1", "(dy * y).sum(axis=0", "over the first axis"),
    ("along = (dy * y).sum(axis=-1, keepdims=True)", "along = dy * y", "the diagonal of the matrix"),
    ("return y * (dy - along)", "return dy - along", "not multiplied by y"),
    ("return y * (dy - along)", "return y * dy - along", "the sum is not multiplied by y"),
    ("dy - along", "-along", "the direct path (y dy) is missing"),
]  # fmt: skip

# %% tags=["check"]
check.softmax_backward(softmax_backward, seed=SEED)

# %% [markdown]
# The real thing: [`ops/activation.py`](../miniclip/ops/activation.py), derived in
# [docs/ops/activation.md](../docs/ops/activation.md).

# %% [markdown]
# ## 6. LayerNorm
#
# $$ \hat x = \frac{x - \overline{x}}{\sqrt{\sigma^2 + \varepsilon}} , \qquad y = \hat x w + b $$
#
# for each row of $x$: (..., D). A bar means the mean over the row, and
# $\sigma^2 = \overline{(x - \overline{x})^2}$, divided by D and not by D − 1. $w$ and $b$: (D,).
#
# The last line first. It is a product and a sum, so $d\hat x = dy w$, and $dw$ and $db$ are sums
# over all rows. Then the normalisation. A number of $x$ acts on $\hat x$ in three ways: directly,
# through the mean, and through the variance. That makes three terms:
#
# $$ dx = \frac{1}{\sqrt{\sigma^2 + \varepsilon}} \Big( d\hat x - \overline{d\hat x} - \hat x \overline{d\hat x \hat x} \Big) . $$
#
# [docs/ops/norm.md](../docs/ops/norm.md) derives it in a page. Try it yourself first.
#
# **Predict** (2 minutes). All of $dy$ is 1, and $w$ is 1 everywhere. What is $dx$?

# %% tags=["predict"]
guess = 0  # SOLUTION
predicted(guess, 0)

# %% [markdown]
# ### Exercise 6: `layer_norm_backward`
#
# 15 minutes. Difficulty 4 of 5, importance 5 of 5: each block of a transformer has two.
#
# <details><summary>Hint</summary>Compute <code>x_hat</code> and <code>inv_std</code> again, with
# <code>keepdims=True</code>, then <code>dx_hat</code>, then its two means.</details>


# %%
print(check.layer_norm_backward.example)


# %% tags=["exercise"]
def layer_norm_backward(dy, x, weight, eps):
    """The backward pass of LayerNorm, y = x_hat * weight + bias.

    dy, x: (..., D). weight: (D,). eps: a number, added to the variance.
    Returns dx (..., D), dweight (D,), dbias (D,).
    """
    # BEGIN SOLUTION
    centred = x - x.mean(axis=-1, keepdims=True)
    var = (centred**2).mean(axis=-1, keepdims=True)  # (..., 1)
    inv_std = 1 / np.sqrt(var + eps)
    x_hat = centred * inv_std
    dx_hat = dy * weight
    along_one = dx_hat.mean(axis=-1, keepdims=True)
    along_x_hat = (dx_hat * x_hat).mean(axis=-1, keepdims=True)
    dx = inv_std * (dx_hat - along_one - x_hat * along_x_hat)
    return dx, sum_to_shape(dy * x_hat, weight.shape), sum_to_shape(dy, weight.shape)
    # END SOLUTION


# %% tags=["right"]
def layer_norm_backward(dy, x, weight, eps):
    d = x.shape[-1]
    std = np.sqrt(x.var(axis=-1, keepdims=True) + eps)
    x_hat = (x - x.mean(axis=-1, keepdims=True)) / std
    # the matrix of derivatives of x_hat: (..., D, D)
    one = np.eye(d, dtype=x.dtype) - 1 / d
    jacobian = (one - np.einsum("...i,...j->...ij", x_hat, x_hat) / d) / std[..., None]
    dx = np.einsum("...i,i,...ij->...j", dy, weight, jacobian)
    over_rows = tuple(range(x.ndim - 1))
    return dx, np.sum(dy * x_hat, axis=over_rows), np.sum(dy, axis=over_rows)


# %% tags=["right"]
def layer_norm_backward(dy, x, weight, eps):
    dx, dweight, dbias = np.empty_like(x), np.zeros_like(weight), np.zeros_like(weight)
    for row in np.ndindex(x.shape[:-1]):
        mean = x[row].mean()
        centred = x[row] - mean
        var = (centred * centred).mean()
        std = (var + eps) ** 0.5
        dweight += dy[row] * centred / std
        dbias += dy[row]
        dx_hat = dy[row] * weight
        dstd = -(dx_hat * centred).sum() / (var + eps)
        dvar = dstd / (2 * std)
        dcentred = dx_hat / std + dvar * 2 * centred / len(centred)
        dx[row] = dcentred - dcentred.mean()
    return dx, dweight, dbias


# %% tags=["wrong"]
WRONG = [
    ("dx_hat - along_one - x_hat", "dx_hat - x_hat", "the path through the mean (- mean(dx_hat)) is missing"),
    ("dx_hat - along_one - x_hat * along_x_hat", "dx_hat - along_one", "the path through the variance (- x_hat mean(dx_hat x_hat)) is missing"),
    ("- along_one - x_hat", "- along_one + x_hat", "the path through the variance (- x_hat mean(dx_hat x_hat)) has the opposite sign"),
    ("dx_hat = dy * weight", "dx_hat = dy", "without weight"),
    ("inv_std * (dx_hat", "(dx_hat", "not divided by the standard deviation"),
    ("np.sqrt(var + eps)", "np.sqrt(var)", "without eps"),
    ("np.sqrt(var + eps)", "(np.sqrt(var) + eps)", "eps added to the deviation"),
    ("1 / np.sqrt(var + eps)", "1 / (var + eps)", "with the variance in the place of"),
    ("(centred**2).mean(axis=-1, keepdims=True)", "x.var(axis=-1, keepdims=True, ddof=1)", "divided by D - 1"),
    ("sum_to_shape(dy * x_hat, weight.shape)", "sum_to_shape(dy * x, weight.shape)", "with x for x_hat"),
    ("sum_to_shape(dy * x_hat, weight.shape)", "dy * x_hat", "dweight has shape"),
    ("along_one = dx_hat.mean(axis=-1, keepdims=True)", "along_one = dx_hat.sum(axis=-1, keepdims=True)", "times the right one"),
    ("return dx, sum_to_shape(dy * x_hat, weight.shape), sum_to_shape(dy, weight.shape)", "return dx, sum_to_shape(dy, weight.shape), sum_to_shape(dy * x_hat, weight.shape)", "exchanged with dbias"),
    ("along_one = dx_hat.mean(axis=-1, keepdims=True)", "along_one = dx_hat.mean()", "with mean(dx_hat) taken over the whole array"),
]  # fmt: skip

# %% tags=["check"]
check.layer_norm_backward(layer_norm_backward, seed=SEED)

# %% [markdown]
# The real thing: [`ops/norm.py`](../miniclip/ops/norm.py). LayerNorm is from [arXiv
# 1607.06450](https://arxiv.org/abs/1607.06450), section 3.


# %% [markdown]
# ## Break: a gradient that passed its test
#
# A colleague has written this backward pass of LayerNorm. The test compares it with measured
# slopes, of the loss `y.sum()`. It passes.


# %%
def layer_norm(x, weight, bias, eps):
    """y = x_hat * weight + bias. x: (..., D). weight, bias: (D,). Returns y (..., D)."""
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps) * weight + bias


def colleagues_backward(dy, x, weight, eps):
    centred = x - x.mean(axis=-1, keepdims=True)
    x_hat = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps)
    dx_hat = dy * weight
    dx = dx_hat - dx_hat.mean(axis=-1, keepdims=True)
    return dx, sum_to_shape(dy * x_hat, weight.shape), sum_to_shape(dy, weight.shape)


x, weight, bias = rng.standard_normal((4, 6)), np.ones(6), np.zeros(6)
dx, _, _ = colleagues_backward(np.ones_like(x), x, weight, 1e-5)
measured = measured_gradient(lambda x: layer_norm(x, weight, bias, 1e-5).sum(), x, 1e-4)
print("largest difference:", np.abs(dx - measured).max().round(9))

# %% [markdown]
# What has the test not seen, and why? (3 minutes.) Change `dy` and the loss in the cell above
# until it fails. Then run the next cell.

# %%
print(check.verdict("layer_norm_backward", colleagues_backward))

# %% [markdown]
# With `dy = 1` and `weight = 1` the right gradient is zero, as you predicted. The colleague's is
# `1 - mean(1)`: zero as well, whatever is missing beside it. So test a gradient with a **random**
# `dy`. The damage is measured below.

# %% [markdown]
# ## In a trained model
#
# `mini-vit` is a small CLIP that comes with miniclip. It was trained on drawings of coloured
# shapes. Here it looks at one, and we ask: which pixels raise its similarity to a caption? That is
# a gradient, through every layer down to the pixels. `replace` puts your functions in the place of
# ours.

# %%
from contextlib import ExitStack

import miniclip
from miniclip.course import replace
from miniclip.world.drawing import draw_scene
from miniclip.world.scenes import make_scene, single_world

model = miniclip.load("mini-vit", backend="numpy")
picture = draw_scene(make_scene(single_world((("red", "circle"),)), 7, SEED), 256)
image = model.transform(picture)  # (1, 3, 64, 64)
caption = model.encode_text(["a red circle"])  # (1, E)


def pixel_gradient():
    """The gradient of embedding . caption by the pixels: (3, 64, 64)."""
    with model.network.record():
        model.network.visual(image)
        return model.network.visual.backward(caption)[0]


ours = pixel_gradient()
with replace("layer_norm", layer_norm, layer_norm_backward) as used:
    yours = pixel_gradient()
print(used)
print("largest difference:", np.abs(yours - ours).max() / np.abs(ours).max())

# %% [markdown]
# Your LayerNorm ran in all blocks, and the answer is the same, but for float32's rounding. Now all
# four at once. The same lines work with a real checkpoint:
# `miniclip.load("ViT-B/32", backend="numpy")`.

# %%
with ExitStack() as stack:
    stack.enter_context(replace("layer_norm", layer_norm, layer_norm_backward))
    stack.enter_context(replace("linear", backward=linear_backward))
    stack.enter_context(replace("quick_gelu", backward=quick_gelu_backward))
    stack.enter_context(replace("softmax", backward=softmax_backward))
    yours = pixel_gradient()
print("largest difference:", np.abs(yours - ours).max() / np.abs(ours).max())

# %% [markdown]
# **The damage.** And the colleague's? Compare the two directions by their cosine: 1 means the
# same.
#
# **Predict** (1 minute). Guess the cosine.

# %% tags=["predict"]
with replace("layer_norm", layer_norm, colleagues_backward):
    theirs = pixel_gradient()
cosine = (theirs * ours).sum() / np.sqrt((theirs**2).sum() * (ours**2).sum())

guess = cosine  # SOLUTION
predicted(guess, cosine)

# %% [markdown]
# Nothing crashes, and no number looks strange. Only a check finds it.

# %% [markdown]
# ## Look
#
# The picture, and the size of the gradient at each pixel, by your functions.

# %% tags=["look"]
size = np.abs(yours).sum(axis=0)  # (64, 64)
figure, (left, right) = plt.subplots(1, 2, figsize=(6, 3), layout="constrained")
left.imshow(picture)
left.set_title("the picture")
right.imshow(size, cmap="magma")
right.set_title("where the similarity is sensitive")
for axes in (left, right):
    axes.set_axis_off()
plt.show()

# %% [markdown]
# ## What to remember
#
# 1. $\delta L = \sum dy \delta y$: write $\delta y$ in terms of $\delta x$, collect, and you have $dx$, in the shape of $x$.
# 2. What was used several times (broadcast) gets the sum of its gradients; what a forward pass removes from $x$ (mean, length), the backward removes from the gradient.
# 3. Measure every gradient by central differences, with a random `dy`: ones hide the errors of a normalisation.
#
# To follow a gradient with the debugger: `from miniclip.course import stop_at`, then
# `stop_at("visual.transformer.resblocks.3.attn")`, then `pixel_gradient()`.
# [docs/debugging.md](../docs/debugging.md) has the commands.
