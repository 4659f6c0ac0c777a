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

#include <cuda_bf16.h>
#include <cuda_fp16.h>

template <typename T> struct Wide { using type = float; };
template <> struct Wide<double> { using type = double; };

template <typename W> __device__ W warp_sum(W value) {
    for (int step = 16; step; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
    return value;
}

template <typename T>
__global__ void layer_norm_forward(const T *x, const T *gain, const T *bias, T *y,
                                   typename Wide<T>::type *mean,
                                   typename Wide<T>::type *inverse_std,
                                   const typename Wide<T>::type *eps, int rows, int C) {
    using W = typename Wide<T>::type;
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

template <typename T>
__global__ void layer_norm_backward(const T *dy, const T *x, const T *gain,
                                    const typename Wide<T>::type *mean,
                                    const typename Wide<T>::type *inverse_std, T *dx, int rows,
                                    int C) {
    using W = typename Wide<T>::type;
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
template <typename T>
__global__ void layer_norm_columns(const T *dy, const T *x, const typename Wide<T>::type *mean,
                                   const typename Wide<T>::type *inverse_std,
                                   typename Wide<T>::type *gain_partial,
                                   typename Wide<T>::type *bias_partial, int rows, int C,
                                   int chunk) {
    using W = typename Wide<T>::type;
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
