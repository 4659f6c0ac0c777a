// Sums over rows, column by column, without atomics: so the same bits every time.
//
// A block of 32 x STACK threads walks down a stripe of 32 V columns; each thread adds up V of them
// in registers, over every STACK-th row of the block's share. Each share of the rows leaves a line
// of sums. add_lines (sums.cu) adds the lines.

constexpr int STACK = 8;

// The thread's first column.
__device__ inline int stripe_column() { return (blockIdx.x * 32 + threadIdx.x) * V; }

// The block's line: the sums of its 8 rows of threads, added in their order.
__device__ inline void write_line(const W (&sums)[V], W *lines, int C) {
    __shared__ W stack[STACK][32 * V];
    for (int v = 0; v < V; v++) stack[threadIdx.y][threadIdx.x * V + v] = sums[v];
    __syncthreads();
    int first = blockIdx.x * 32 * V;
    for (int i = threadIdx.y * 32 + threadIdx.x; i < 32 * V && first + i < C; i += 32 * STACK) {
        W sum = 0;
        for (int y = 0; y < STACK; y++) sum += stack[y][i];
        lines[(long long)blockIdx.y * C + first + i] = sum;
    }
}
