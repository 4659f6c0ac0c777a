// Layer normalisation over rows of C elements, alone or of a residual sum.   Ba et al. 2016, eq. 4
//
//   s = x + addend, rounded to T (s = x without addend)
//   y = gain * n + bias,  n = (s - mean) / std,  std = sqrt(variance + eps)
//   dx = plus + (dn - mean(dn) - n * mean(dn * n)) / std,  dn = gain * dy
//   dgain = sum of dy * n over rows,  dbias = sum of dy
//
// x, addend, s, y, dy, plus, dx: (rows, C)   gain, bias: (C)
// kept: (2, rows), W: the means, the stds   lines: (2, blocks, C), W: the sums for dgain and for
// dbias over the rows of each block
//
// Fused: the residual sum and its norm; dx, the gradient that s has already (plus), and the sums
// for dgain and dbias. Kept: s, mean and std. Bytes moved per element of bf16: forward 4 (x in, y
// out), with a sum 8 (x, addend in; s, y out); backward 6 (dy, x in; dx out), with plus 8.
//
// The lanes of one row hold it in registers: one warp, or a whole block where C needs more. The
// launcher defines HELD, the elements of a row that one thread holds.

constexpr int K = HELD / V;  // the same in packs
using Held = W[K][V];
// blocks at once on a multiprocessor: as many as the registers allow
constexpr int FEW = HELD * sizeof(W) < 96, NARROW = sizeof(T) == 2;
constexpr int FORWARD_BLOCKS = (3 + NARROW) * (1 + FEW), BACKWARD_BLOCKS = 1 + NARROW + FEW;

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

// Beyond the end the last pack stands again: `each` leaves it out.
__device__ inline void load_row(Pack (&packs)[K], const T *row, int C) {
#pragma unroll
    for (int k = 0; k < K; k++) packs[k] = load(row + min(column(k), C - V));
}

__device__ inline void store_row(const Held &held, T *row, int C) {
#pragma unroll
    for (int k = 0; k < K; k++)
        if (column(k) < C) {
            Pack pack;
            for (int v = 0; v < V; v++) pack.v[v] = (T)held[k][v];
            store(row + column(k), pack);
        }
}

// Asks for a row that is needed soon, and does not wait for it: 128 bytes a thread.
__device__ inline void prefetch_row(const T *row, int C) {
    int c = threadIdx.x * (128 / sizeof(T));
    if (c < C) asm volatile("prefetch.global.L2 [%0];" ::"l"(row + c));
}

// Replaces each of N values by its sum over all lanes of a row.
template <int N, class S> __device__ inline void row_sums(S (&values)[N]) {
    for (int i = 0; i < N; i++)
        for (int step = 16; step; step /= 2) values[i] += __shfl_xor_sync(ALL, values[i], step);
    if (blockDim.x == 32) return;
    __shared__ S of_warps[N][6];
    __syncthreads();  // the sums of the call before have been read
    if (threadIdx.x % 32 == 0)
        for (int i = 0; i < N; i++) of_warps[i][threadIdx.x / 32] = values[i];
    __syncthreads();
    for (int i = 0; i < N; i++) {
        values[i] = 0;
        for (int warp = 0; warp < blockDim.x / 32; warp++) values[i] += of_warps[i][warp];
    }
}

// Mean and std of a row, with sums in S.
template <class S> __device__ inline void moments(const Held &x, W eps, int C, W &mean, W &std) {
    S sum[] = {0}, squares[] = {0};
    each(C, [&](int k, int v) { sum[0] += x[k][v]; });
    row_sums(sum);
    S m = sum[0] / C;
    // a second pass: E[x^2] - m^2 would cancel
    each(C, [&](int k, int v) {
        S d = x[k][v] - m;
        squares[0] += d * d;
    });
    row_sums(squares);
    mean = m;
    std = sqrt(squares[0] / C + eps);
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
    __device__ W operator()(W x) const { return (x * scale - shift) * inverse; }
};


KERNEL __launch_bounds__(192, FORWARD_BLOCKS)
layer_norm_forward(const T *x, const T *addend, T *s, const T *gain, const T *bias, T *y, W *kept,
                   W eps, int rows, int C) {
    int row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return;
    long long start = (long long)row * C;
    Pack packs[K], others[K];
    Held held;
    load_row(packs, x + start, C);
    if (addend) load_row(others, addend + start, C);
    each(C, [&](int k, int v) { held[k][v] = (W)packs[k].v[v]; });
    if (addend) {
        each(C, [&](int k, int v) { held[k][v] = (W)(T)(held[k][v] + (W)others[k].v[v]); });
        store_row(held, s + start, C);
    }
    W m, deviation;
    moments<W>(held, eps, C, m, deviation);
    // squares of floats vanish or overflow, where those of doubles do not
    if (sizeof(W) == 4 && !(deviation > (W)1e-15 && deviation < (W)1e30))
        moments<double>(held, eps, C, m, deviation);
    Affine normed(m, deviation);
    load_row(packs, gain, C);
    load_row(others, bias, C);
    each(C, [&](int k, int v) {
        held[k][v] = normed(held[k][v]) * (W)packs[k].v[v] + (W)others[k].v[v];
    });
    store_row(held, y + start, C);
    if (threadIdx.x == 0) {
        kept[row] = m;
        kept[rows + row] = deviation;
    }
}

// A block's line of column sums: those of its warps, added in the order of the warps.
__device__ inline void write_line(const Held &sums, W *line, int C) {
    if (blockDim.y == 1) {
        each(C, [&](int k, int v) { line[column(k) + v] = sums[k][v]; });
        return;
    }
    __shared__ W of_warps[6][HELD][32];
    each(C, [&](int k, int v) { of_warps[threadIdx.y][k * V + v][threadIdx.x] = sums[k][v]; });
    __syncthreads();
    for (int i = threadIdx.y; i < HELD; i += blockDim.y) {
        int c = column(i / V) + i % V;
        if (c >= C) continue;
        W sum = 0;
        for (int warp = 0; warp < blockDim.y; warp++) sum += of_warps[warp][i][threadIdx.x];
        line[c] = sum;
    }
    __syncthreads();  // the next call writes `of_warps` again
}

KERNEL __launch_bounds__(192, BACKWARD_BLOCKS)
layer_norm_backward(const T *dy, const T *x, const T *gain, const W *kept, const T *plus, T *dx,
                    W *lines, int rows, int C) {
    Held dgain = {}, dbias = {};
    int stride = gridDim.x * blockDim.y;
    W share = (W)1 / C;
    // without plus, dy stands for it and counts 0 times: a load that is conditional would be waited
    // for at once
    const T *so_far = plus ? plus : dy;
    W weight = plus ? 1 : 0;
    for (int row = blockIdx.x * blockDim.y + threadIdx.y; row < rows; row += stride) {
        long long start = (long long)row * C;
        W mean = kept[row], std = kept[rows + row];
        Pack packs[K], upstream[K], gains[K], before[K];
        load_row(packs, x + start, C);
        load_row(upstream, dy + start, C);
        load_row(gains, gain, C);
        if (row + stride < rows) {
            long long next = start + (long long)stride * C;
            prefetch_row(x + next, C);
            prefetch_row(dy + next, C);
            prefetch_row(so_far + next, C);
        }
        Affine normed(mean, std);
        Held n, dn;
        W sums[2] = {0, 0};  // of dn, and of dn * n
        each(C, [&](int k, int v) {
            W d = (W)upstream[k].v[v];
            n[k][v] = normed((W)packs[k].v[v]);
            dn[k][v] = d * (W)gains[k].v[v];
            sums[0] += dn[k][v];
            sums[1] += dn[k][v] * n[k][v];
            dgain[k][v] += d * n[k][v];
            dbias[k][v] += d;
        });
        load_row(before, so_far + start, C);
        row_sums(sums);
        W dn_mean = sums[0] * share, dn_n_mean = sums[1] * share;
        W slope = normed.inverse * normed.scale;  // 1 / std
        each(C, [&](int k, int v) {
            W own = dn[k][v] - dn_mean - n[k][v] * dn_n_mean;
            dn[k][v] = own * slope + weight * (W)before[k].v[v];
        });
        store_row(dn, dx + start, C);
    }
    write_line(dgain, lines + (long long)blockIdx.x * C, C);
    write_line(dbias, lines + (long long)(gridDim.x + blockIdx.x) * C, C);
}
