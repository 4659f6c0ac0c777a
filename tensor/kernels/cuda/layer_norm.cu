// Layer normalisation over rows of C elements, alone or of a residual sum.   Ba et al. 2016, eq. 4
//
//   s = x + addend, rounded to T (s = x without addend)
//   y = gain * n + bias,  n = (s - mean) / std,  std = sqrt(variance + eps)
//   dx = plus + (dn - mean(dn) - n * mean(dn * n)) / std,  dn = gain * dy
//   dgain = sum of dy * n over rows,  dbias = sum of dy
//
// x, addend, s, y, dy, plus, dx: (rows, C)   gain, bias: (C)   mean, std: (rows), W
// gain_lines, bias_lines: (blocks, C), W: the sums over the rows of each block
//
// Fused: the residual sum and its norm; dx, the gradient that s has already (plus), and the sums
// for dgain and dbias. Kept: s, mean and std. Bytes moved per element of bf16: forward 4 (x in, y
// out), with a sum 8 (x, addend in; s, y out); backward 6 (dy, x in; dx out), with plus 8.
//
// The lanes of one row hold it in registers: one warp, or a whole block where C needs more.

constexpr int HELD = sizeof(W) == 8 ? 12 : 24;  // elements of a row that one thread holds
constexpr int K = HELD / V;                     // the same in packs
using Held = Pack[K];
using Sums = W[K][V];

__device__ inline int column(int k) { return (k * blockDim.x + threadIdx.x) * V; }

// f(k, v) for each element that this thread holds: element v of pack k
template <class F> __device__ inline void each(int C, F f) {
#pragma unroll
    for (int k = 0; k < K; k++)
        if (column(k) < C) {
#pragma unroll
            for (int v = 0; v < V; v++) f(k, v);
        }
}

__device__ inline void read(Held &held, const T *row, int C) {
#pragma unroll
    for (int k = 0; k < K; k++)
        if (column(k) < C) held[k] = load(row + column(k));
}

__device__ inline void write(const Held &held, T *row, int C) {
#pragma unroll
    for (int k = 0; k < K; k++)
        if (column(k) < C) store(row + column(k), held[k]);
}

// The sum over all lanes of a row.
template <class S> __device__ inline S row_sum(S value) {
    for (int step = 16; step; step /= 2) value += __shfl_xor_sync(ALL, value, step);
    if (blockDim.x == 32) return value;
    __shared__ S of_warps[8];
    __syncthreads();  // the sums of the call before have been read
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = value;
    __syncthreads();
    value = 0;
    for (int warp = 0; warp < blockDim.x / 32; warp++) value += of_warps[warp];
    return value;
}

// Mean and std of a row, with sums in S.
template <class S> __device__ inline void moments(const Held &x, W eps, int C, W &mean, W &std) {
    S sum = 0, squares = 0;
    each(C, [&](int k, int v) { sum += (W)x[k].v[v]; });
    S m = row_sum(sum) / C;
    // a second pass: E[x^2] - m^2 would cancel
    each(C, [&](int k, int v) {
        S d = (W)x[k].v[v] - m;
        squares += d * d;
    });
    mean = m;
    std = sqrt(row_sum(squares) / C + eps);
}

// What makes n of x:  n = (x - mean) / std = (x * scale - shift) * inverse.
struct Affine {
    W scale, shift, inverse;
    // where std is large, 1 / std is no normal float: x and std are scaled by a power of 2, exactly
    __device__ Affine(W mean, W std) {
        scale = std > (W)1e30 ? (W)0x1p-100 : (W)1;
        shift = mean * scale;
        inverse = 1 / (std * scale);
    }
    __device__ W operator()(T x) const { return ((W)x * scale - shift) * inverse; }
};

KERNEL __launch_bounds__(192, 4) layer_norm_forward(const T *x, const T *addend, T *s,
                                                    const T *gain, const T *bias, T *y, W *mean,
                                                    W *std, W eps, int rows, int C) {
    int row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return;
    long long start = (long long)row * C;
    Held held, other;
    read(held, x + start, C);
    if (addend) {
        read(other, addend + start, C);
        each(C, [&](int k, int v) { held[k].v[v] = (T)((W)held[k].v[v] + (W)other[k].v[v]); });
        write(held, s + start, C);
    }
    W m, deviation;
    moments<W>(held, eps, C, m, deviation);
    // squares of floats vanish or overflow, where those of doubles do not
    if (sizeof(W) == 4 && !(deviation > (W)1e-15 && deviation < (W)1e30))
        moments<double>(held, eps, C, m, deviation);
    Affine normed(m, deviation);
    Held g, b;
    read(g, gain, C);
    read(b, bias, C);
    each(C, [&](int k, int v) {
        held[k].v[v] = (T)(normed(held[k].v[v]) * (W)g[k].v[v] + (W)b[k].v[v]);
    });
    write(held, y + start, C);
    if (threadIdx.x == 0) {
        mean[row] = m;
        std[row] = deviation;
    }
}

// A block's line of column sums: those of its warps, added in the order of the warps.
__device__ inline void write_line(const Sums &sums, W *line, int C) {
    if (blockDim.y == 1) {
        each(C, [&](int k, int v) { line[column(k) + v] = sums[k][v]; });
        return;
    }
    __shared__ W total[32 * HELD];
    for (int warp = 0; warp < blockDim.y; warp++) {
        if (threadIdx.y == warp)
            each(C, [&](int k, int v) {
                int c = column(k) + v;
                total[c] = warp ? total[c] + sums[k][v] : sums[k][v];
            });
        __syncthreads();
    }
    for (int c = threadIdx.y * 32 + threadIdx.x; c < C; c += 32 * blockDim.y) line[c] = total[c];
    __syncthreads();  // the next call writes `total` again
}

KERNEL __launch_bounds__(192, 2) layer_norm_backward(const T *dy, const T *x, const T *gain,
                                                     const W *mean, const W *std, const T *plus,
                                                     T *dx, W *gain_lines, W *bias_lines, int rows,
                                                     int C) {
    Sums dgain = {}, dbias = {};
    int stride = gridDim.x * blockDim.y;
    for (int row = blockIdx.x * blockDim.y + threadIdx.y; row < rows; row += stride) {
        long long start = (long long)row * C;
        Held held, upstream, g, before = {};
        read(held, x + start, C);
        read(upstream, dy + start, C);
        read(g, gain, C);
        if (plus) read(before, plus + start, C);
        Affine normed(mean[row], std[row]);
        W sum = 0, dot = 0;
        each(C, [&](int k, int v) {
            W n = normed(held[k].v[v]), d = (W)upstream[k].v[v], dn = d * (W)g[k].v[v];
            sum += dn;
            dot += dn * n;
            dgain[k][v] += d * n;
            dbias[k][v] += d;
        });
        sum = row_sum(sum) / C;
        dot = row_sum(dot) / C;
        each(C, [&](int k, int v) {
            W n = normed(held[k].v[v]), dn = (W)upstream[k].v[v] * (W)g[k].v[v];
            W own = (dn - sum - n * dot) * normed.inverse * normed.scale;
            held[k].v[v] = (T)(own + (W)before[k].v[v]);
        });
        write(held, dx + start, C);
    }
    write_line(dgain, gain_lines + (long long)blockIdx.x * C, C);
    write_line(dbias, bias_lines + (long long)blockIdx.x * C, C);
}
