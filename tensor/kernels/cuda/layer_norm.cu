// Layer normalisation over rows of C elements.      Ba et al. 2016, eq. 4
//
//   y = gain * n + bias,  n = (x - mean) * inverse_std,  inverse_std = 1 / sqrt(variance + eps)
//   dx = (dn - mean(dn) - n * mean(dn * n)) * inverse_std,  dn = gain * dy
//
// x, y, dy, dx: (rows, C)   gain, bias: (C)   mean, inverse_std: (rows), float (double for double)
// partial: (chunks, C)
//
// Fused: two reductions and the affine map forward; three passes of the reference backward. Kept:
// mean and inverse_std, 8 bytes a row, where the reference keeps n, as large as x. Bytes moved
// forward, per element of bf16: 4 (x in, y out), where the composition of small ops moves about 24.
// One warp per row; sums in float32 (float64 for double).

KERNEL layer_norm_forward(const T *x, const T *gain, const T *bias, T *y,
                                   W *mean,
                                   W *inverse_std,
                                   const W *eps, int rows, int C) {
    int row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return;
    const T* in = x + (long long)row * C;
    T* out = y + (long long)row * C;
    W sum = 0, squares = 0;
    for (int c = threadIdx.x; c < C; c += 32) sum += (W)in[c];
    W m = warp_sum(sum) / C;
    // a second pass: E[x^2] - m^2 would cancel
    for (int c = threadIdx.x; c < C; c += 32) { W d = (W)in[c] - m; squares += d * d; }
    W r = 1 / sqrt(warp_sum(squares) / C + eps[0]);
    for (int c = threadIdx.x; c < C; c += 32)
        out[c] = (T)(((W)in[c] - m) * r * (W)gain[c] + (W)bias[c]);
    if (threadIdx.x == 0) { mean[row] = m; inverse_std[row] = r; }
}

KERNEL layer_norm_backward(const T *dy, const T *x, const T *gain,
                                    const W *mean,
                                    const W *inverse_std, T *dx, int rows,
                                    int C) {
    int row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return;
    long long start = (long long)row * C;
    W m = mean[row], r = inverse_std[row], sum = 0, dot = 0;
    for (int c = threadIdx.x; c < C; c += 32) {
        W dn = (W)dy[start + c] * (W)gain[c];
        sum += dn;
        dot += dn * ((W)x[start + c] - m) * r;
    }
    sum = warp_sum(sum) / C;
    dot = warp_sum(dot) / C;
    for (int c = threadIdx.x; c < C; c += 32) {
        W n = ((W)x[start + c] - m) * r, dn = (W)dy[start + c] * (W)gain[c];
        dx[start + c] = (T)((dn - sum - n * dot) * r);
    }
}

// Column sums for dgain and dbias: block (32 columns, 8 rows), each chunk of rows gives one line of
// `gain_partial` and `bias_partial`, which the caller adds up: no atomics, so the same bits every
// time.
KERNEL layer_norm_columns(const T *dy, const T *x, const W *mean,
                                   const W *inverse_std,
                                   W *gain_partial,
                                   W *bias_partial, int rows, int C,
                                   int chunk) {
    __shared__ W gains[8][33], biases[8][33];
    int c = blockIdx.x * 32 + threadIdx.x, first = blockIdx.y * chunk;
    int last = min(rows, first + chunk);
    W dgain = 0, dbias = 0;
    if (c < C) {
        for (int row = first + threadIdx.y; row < last; row += 8) {
            W d = (W)dy[(long long)row * C + c];
            dgain += d * ((W)x[(long long)row * C + c] - mean[row]) * inverse_std[row];
            dbias += d;
        }
    }
    gains[threadIdx.y][threadIdx.x] = dgain;
    biases[threadIdx.y][threadIdx.x] = dbias;
    __syncthreads();
    if (threadIdx.y == 0 && c < C) {
        for (int i = 1; i < 8; i++) {
            dgain += gains[i][threadIdx.x];
            dbias += biases[i][threadIdx.x];
        }
        gain_partial[(long long)blockIdx.y * C + c] = dgain;
        bias_partial[(long long)blockIdx.y * C + c] = dbias;
    }
}
