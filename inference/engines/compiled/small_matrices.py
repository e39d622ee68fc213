"""Products, triangular systems and Cholesky factors of small matrices, as C++ with all sizes known at compile time.

A matrix is an address and its strides; all come in batches. Each function returns the C++ call in three parts: the
function with its template arguments, the tensors whose addresses it takes, and its scalar arguments.
"""

from torch import Tensor

MAX_MULTIPLICATIONS = 300_000  # torch's own routines are faster above this
Call = tuple[str, list[Tensor], str]


class Unsupported(Exception):  # noqa: N818 (the caller takes another way)
    """Something that a C++ loop cannot do, or not fast."""


def product(c: Tensor, a: Tensor, b: Tensor, out: Tensor, alpha: float, beta: float) -> Call:
    """``out = alpha a b + beta c``."""
    c = c.expand_as(out)
    rows, inner, columns = *a.shape[-2:], b.shape[-1]
    _check_size(out.numel() * inner)
    workspace = out.new_empty((inner + 1) * max(rows, columns))
    name = _with_sizes("product", [rows, inner, columns], [c, a, b, out])
    return name, [c, a, b, out, workspace], f", {alpha}, {beta}"


def solution(a: Tensor, b: Tensor, out: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Call:
    """Solve ``a out = b``, or ``out a = b``, for a triangular matrix ``a``."""
    if not left:
        return solution(a.mT, b.mT, out.mT, upper=not upper, unitriangular=unitriangular)
    a, b = a.expand(*out.shape[:-2], *a.shape[-2:]), b.expand_as(out)
    _check_size(out.numel() * a.shape[-1])
    size, columns = out.shape[-2:]
    workspace = out.new_empty(size * (size + columns))
    name = _with_sizes("solve", [size, columns, int(upper), int(unitriangular)], [a, b, out])
    return name, [a, b, out, workspace], ""


def factor(a: Tensor, out: Tensor) -> Call:
    """Lower Cholesky factor; nan if a matrix is not positive definite."""
    _check_size(a.numel() * a.shape[-1])
    return _with_sizes("cholesky", [a.shape[-1]], [a, out]), [a, out], ""


def _check_size(multiplications: int) -> None:
    if multiplications > MAX_MULTIPLICATIONS:
        raise Unsupported("it has large matrices")


def _with_sizes(name: str, sizes: list[int], matrices: list[Tensor]) -> str:
    try:
        batched = [matrix.view(-1, *matrix.shape[-2:]) for matrix in matrices]  # (batch, row, column), the same memory
    except RuntimeError:
        raise Unsupported("its batches are not evenly spaced in memory") from None
    numbers = [len(batched[0]), *sizes, *(stride for matrix in batched for stride in matrix.stride())]
    return f"{name}<{', '.join(map(str, numbers))}>"


SOURCE = r"""
#pragma GCC push_options
#pragma GCC optimize("tree-loop-vectorize")  // which Inductor switches off

constexpr int few = 8;  // a product with fewer rows and columns is summed along its inner dimension

// out = alpha a b + beta c; the longer of rows and columns is the inner loop.
template <int Z, int M, int K, int N, int cz, int ci, int cj, int az, int ai, int ak, int bz, int bk, int bj,
          int oz, int oi, int oj>
static inline void product(const number* c, const number* a, const number* b, number* out,
                           number* __restrict__ workspace, number alpha, number beta) {
  if constexpr (M > N) {
    product<Z, N, K, M, cz, cj, ci, bz, bj, bk, az, ak, ai, oz, oj, oi>(c, b, a, out, workspace, alpha, beta);
  } else if constexpr (N >= few) {
    number *__restrict__ sum = workspace, *__restrict__ packed = workspace + N;
    for (int z = 0; z < Z; ++z) {
      const number* right = b + z * bz;
      if constexpr (bj != 1) {
        for (int k = 0; k < K; ++k)
          for (int j = 0; j < N; ++j) packed[k * N + j] = right[k * bk + j * bj];
        right = packed;
      }
      constexpr int row = bj != 1 ? N : bk;
      for (int i = 0; i < M; ++i) {
        for (int j = 0; j < N; ++j) sum[j] = 0;
        for (int k = 0; k < K; ++k) {
          const number factor = alpha * a[z * az + i * ai + k * ak];
          #pragma omp simd
          for (int j = 0; j < N; ++j) sum[j] += factor * right[k * row + j];
        }
        for (int j = 0; j < N; ++j) {
          const number rest = beta == 0 ? 0 : beta * c[z * cz + i * ci + j * cj];
          out[z * oz + i * oi + j * oj] = sum[j] + rest;
        }
      }
    }
  } else {
    for (int z = 0; z < Z; ++z) {
      number sum[M * N] = {0};
      if constexpr (ak == 1 && bk == 1) {
        for (int i = 0; i < M; ++i)
          for (int j = 0; j < N; ++j) {
            number total = 0;
            #pragma omp simd reduction(+ : total)
            for (int k = 0; k < K; ++k) total += a[z * az + i * ai + k] * b[z * bz + k + j * bj];
            sum[i * N + j] = total;
          }
      } else {
        for (int k = 0; k < K; ++k)
          for (int i = 0; i < M; ++i) {
            const number factor = a[z * az + i * ai + k * ak];
            #pragma omp simd
            for (int j = 0; j < N; ++j) sum[i * N + j] += factor * b[z * bz + k * bk + j * bj];
          }
      }
      for (int i = 0; i < M; ++i)
        for (int j = 0; j < N; ++j) {
          const number rest = beta == 0 ? 0 : beta * c[z * cz + i * ci + j * cj];
          out[z * oz + i * oi + j * oj] = alpha * sum[i * N + j] + rest;
        }
    }
  }
}

// a x = b with a triangular (S, S) matrix and R columns.
template <int Z, int S, int R, int upper, int unit, int az, int ai, int aj, int bz, int bi, int bj,
          int oz, int oi, int oj>
static inline void solve(const number* a, const number* b, number* out, number* __restrict__ workspace) {
  number *__restrict__ m = workspace, *__restrict__ x = workspace + S * S;
  for (int z = 0; z < Z; ++z) {
    for (int i = 0; i < S; ++i)
      for (int j = 0; j < S; ++j) m[i * S + j] = a[z * az + i * ai + j * aj];
    for (int i = 0; i < S; ++i) m[i * S + i] = unit ? 1 : 1 / m[i * S + i];
    for (int i = 0; i < S; ++i)
      for (int r = 0; r < R; ++r) x[i * R + r] = b[z * bz + i * bi + r * bj];
    for (int step = 0; step < S; ++step) {
      const int i = upper ? S - 1 - step : step;
      for (int other = 0; other < step; ++other) {
        const int j = upper ? S - 1 - other : other;
        #pragma omp simd
        for (int r = 0; r < R; ++r) x[i * R + r] -= m[i * S + j] * x[j * R + r];
      }
      #pragma omp simd
      for (int r = 0; r < R; ++r) x[i * R + r] *= m[i * S + i];
    }
    for (int i = 0; i < S; ++i)
      for (int r = 0; r < R; ++r) out[z * oz + i * oi + r * oj] = x[i * R + r];
  }
}

template <int Z, int S, int az, int ai, int aj, int oz, int oi, int oj>
static inline void cholesky(const number* a, number* out) {
  for (int z = 0; z < Z; ++z) {
    number* l = out + z * oz;
    for (int j = 0; j < S; ++j) {
      for (int i = 0; i < j; ++i) l[i * oi + j * oj] = 0;
      for (int i = j; i < S; ++i) {
        number value = a[z * az + i * ai + j * aj];
        for (int k = 0; k < j; ++k) value -= l[i * oi + k * oj] * l[j * oi + k * oj];
        l[i * oi + j * oj] = i == j ? (number) __builtin_sqrt(value) : value / l[j * oi + j * oj];
      }
    }
  }
}
#pragma GCC pop_options
"""
