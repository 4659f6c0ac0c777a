// Sums of columns: bias gradients.
//
//   sums[c] = sum over rows of rows[row, c]
//
// rows: (N, C)   lines: (shares, C), W, the sums of each share of the rows
// out, second: (C), T, which is the dtype of the result here
//
// Bytes moved per element of bf16: 2 (in). columns.cuh says how the rows are shared out.

KERNEL __launch_bounds__(256, 8) column_lines(const T *rows, W *lines, int N, int C) {
    int c = stripe_column();
    W sums[V] = {};
    if (c < C) {
#pragma unroll 4
        for (int row = blockIdx.y * STACK + threadIdx.y; row < N; row += gridDim.y * STACK) {
            Pack x = load(rows + (long long)row * C + c);
            for (int v = 0; v < V; v++) sums[v] += (W)x.v[v];
        }
    }
    write_line(sums, lines, C);
}

// out = sum of the lines, or out += that sum; in a second row of blocks the same of the `count`
// lines that follow, into `second`. Block: 32 columns x 32 lines at a time.
KERNEL add_lines(const W *lines, T *out, T *second, int count, int C, int add, int add_second) {
    __shared__ W sums[32][33];
    int c = blockIdx.x * 32 + threadIdx.x;
    const W *from = lines + (long long)blockIdx.y * count * C;
    W sum = 0;
    if (c < C) {
#pragma unroll 4
        for (int line = threadIdx.y; line < count; line += 32) sum += from[(long long)line * C + c];
    }
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y > 0 || c >= C) return;
    for (int y = 1; y < 32; y++) sum += sums[y][threadIdx.x];
    T *to = (blockIdx.y ? second : out) + c;
    *to = (T)(((blockIdx.y ? add_second : add) ? (W)*to : (W)0) + sum);
}
