// Attention by tiles in shared memory, without tensor cores: for float32.   The formulas: plain.cu
//
// q, y: (B, H, queries, D)   k, v: (B, H, keys, D)   log_sums, totals: (B, H, queries), W
//
// New here: a block of 16 x 16 threads works on a tile of TILE rows, and goes along tiles of the
// other side. Rows lie in shared memory as W, so each is read from memory once for a block. A
// thread has R x R scores of a tile, of rows side by side and columns 16 apart, and as many rows of
// the result: R + R numbers that it reads from shared memory serve R x R multiply-adds. The 16
// threads of a row are half a warp: they find its largest score by shuffles, and hand each other
// the weights through shared memory without waiting for other warps. Tiles that no query sees are
// left out.
//
// Counted as in plain.cu, with n = TILE rows of a block, for bf16. For float32 the bytes from
// memory are twice as many, and all else is alike.
//
//                                forward                           backward: dq; dk and dv
//   multiply-adds                2 D P = 25.8 G                    3 D P; 4 D P: 90.3 G
//   bytes of k and v by blocks   2 B H D T (T + n) / n: 0.86 GB    the same for each
//   registers, bytes spilled     80, 0                             128, 0; 128, 0
//   shared memory of a block     70 KB                             87 KB
//   blocks a multiprocessor      3 of 256 threads                  2
//   time, rate                   2.35 ms, 22.0 TFLOP/s             7.67 ms, 16.8 TFLOP/s
//
// For 64 multiply-adds of scores, a warp keeps shared memory busy for 12 cycles (16 bytes of a row
// take 1, of 16 columns 2); for 64 of results, 20. A multiprocessor does 64 multiply-adds of warps
// in 16 cycles. So neither limit is far from the 67 TFLOP/s of float32. The exponentials, the
// conversions and the waits take the rest.

constexpr int R = sizeof(W) == 8 ? 2 : 4;        // rows and columns of a thread
constexpr int TILE = 16 * R, THREADS = 256;
constexpr int WIDTH = (D + 15) / 16 * 16;        // numbers of a row in shared memory, then zeros
constexpr int CHUNK = 16 / sizeof(W);            // numbers in 16 bytes
constexpr int STRIDE = WIDTH + CHUNK;            // so rows begin in different banks
constexpr int WEIGHTS = TILE + CHUNK;            // the same for a tile of weights

struct alignas(16) Chunk {
    W v[CHUNK];
};

__device__ inline Chunk chunk(const W *from) { return *reinterpret_cast<const Chunk *>(from); }
__device__ inline int own_row(int i) { return threadIdx.x / 16 * R + i; }
__device__ inline int own_column(int j) { return threadIdx.x % 16 + 16 * j; }

// -- tiles

// Rows `first` to `first` + TILE of a head, zeros from row `end` on. Gives whether some number that
// this thread read is NaN or infinite.
__device__ inline bool read_tile(W *tile, const Heads &x, const Place &at, int first, int end) {
    bool strange = false;
    for (int i = threadIdx.x; i < TILE * WIDTH; i += THREADS) {
        int row = i / WIDTH, d = i % WIDTH;
        W value = first + row < end && d < D ? (W)x.at(at.b, at.h, first + row)[d] : (W)0;
        tile[row * STRIDE + d] = value;
        strange |= value - value != 0;
    }
    return strange;
}

// sums[i][j] = rows[i] . columns[j] over D
__device__ inline void dots(W (&sums)[R][R], const W *rows, const W *columns) {
    for (int i = 0; i < R; i++)
        for (int j = 0; j < R; j++) sums[i][j] = 0;
#pragma unroll 4
    for (int d = 0; d < WIDTH; d += CHUNK) {
        Chunk a[R], b[R];
#pragma unroll
        for (int i = 0; i < R; i++) {
            a[i] = chunk(rows + own_row(i) * STRIDE + d);
            b[i] = chunk(columns + own_column(i) * STRIDE + d);
        }
#pragma unroll
        for (int i = 0; i < R; i++)
#pragma unroll
            for (int j = 0; j < R; j++)
#pragma unroll
                for (int e = 0; e < CHUNK; e++) sums[i][j] += a[i].v[e] * b[j].v[e];
    }
}

// Shows the weights of this thread to the others of its rows, in the tile `shown`.
__device__ inline void show(W *shown, const W (&weights)[R][R]) {
    __syncwarp();  // those of before have been read
    for (int i = 0; i < R; i++)
        for (int j = 0; j < R; j++) shown[own_row(i) * WEIGHTS + own_column(j)] = weights[i][j];
    __syncwarp();
}

// sums[i] += sum over rows of x of weights[i][row] x[row].   careful: 0 times NaN is 0
template <bool careful>
__device__ inline void add_rows(W (&sums)[R][WIDTH / 16], const W *weights, const W *x) {
#pragma unroll 2
    for (int row = 0; row < TILE; row += CHUNK) {
        Chunk w[R];
#pragma unroll
        for (int i = 0; i < R; i++) w[i] = chunk(weights + own_row(i) * WEIGHTS + row);
#pragma unroll
        for (int e = 0; e < CHUNK; e++)
#pragma unroll
            for (int j = 0; j < WIDTH / 16; j++) {
                W value = x[(row + e) * STRIDE + own_column(j)];
#pragma unroll
                for (int i = 0; i < R; i++)
                    if (!careful || w[i].v[e] != 0) sums[i][j] += w[i].v[e] * value;
            }
    }
}

__device__ inline void add_weighted(W (&sums)[R][WIDTH / 16], W *shown, const W (&weights)[R][R],
                                    const W *x, bool careful) {
    show(shown, weights);
    if (careful)
        add_rows<true>(sums, shown, x);
    else
        add_rows<false>(sums, shown, x);
}

__device__ inline void write_rows(const W (&sums)[R][WIDTH / 16], const W (&factors)[R],
                                  const Heads &to, const Place &at, int first, int end) {
    for (int i = 0; i < R; i++)
        for (int j = 0; j < WIDTH / 16; j++) {
            int row = first + own_row(i), d = own_column(j);
            if (row < end && d < D) to.at(at.b, at.h, row)[d] = (T)(sums[i][j] * factors[i]);
        }
}

// f(i, j, row, column) for each element of `dots`
template <class F> __device__ inline void each(int row, int column, F f) {
#pragma unroll
    for (int i = 0; i < R; i++)
#pragma unroll
        for (int j = 0; j < R; j++) f(i, j, row + own_row(i), column + own_column(j));
}

// -- forward

// The largest or the sum of a number of each of the 16 threads of a row.
template <bool largest> __device__ inline W of_row(W value) {
    for (int step = 8; step; step /= 2) {
        W other = __shfl_xor_sync(ALL, value, step);
        value = largest ? max(value, other) : value + other;
    }
    return value;
}

KERNEL __launch_bounds__(256) attention_tiles_forward(Heads q, Heads k, Heads v, Mask mask, Heads y,
                                                      W *log_sums, Case c) {
    extern __shared__ uint4 memory[];
    W *queries = (W *)memory, *keys = queries + TILE * STRIDE, *values = keys + TILE * STRIDE;
    W *shown = values + TILE * STRIDE;
    int blocks = ceil_div(c.queries, TILE);
    Place at = place(c, blocks);
    // the last queries see the most keys: their blocks begin first
    int first = (blocks - 1 - at.tile) * TILE;
    int end = keys_before(c, min(first + TILE, c.queries) - 1);
    bool hides = MASKED || c.causal;
    read_tile(queries, q, at, first, c.queries);
    W output[R][WIDTH / 16] = {}, largest[R], sums[R] = {}, factors[R];
    for (int i = 0; i < R; i++) largest[i] = -INFINITY;

    for (int s = 0; s < end; s += TILE) {
        __syncthreads();  // the tile of before has been read
        read_tile(keys, k, at, s, c.keys);
        bool strange = __syncthreads_or(read_tile(values, v, at, s, c.keys));
        W weights[R][R];
        dots(weights, queries, keys);
        each(first, s, [&](int i, int j, int t, int s) {
            W score = (W)c.scale * weights[i][j];
            weights[i][j] = seen(c, mask, at, t, s) ? score : -INFINITY;
        });
        for (int i = 0; i < R; i++) {
            W top = largest[i], sum = 0;
            for (int j = 0; j < R; j++) top = max(top, weights[i][j]);
            top = of_row<true>(top);
            W base = top == -INFINITY ? 0 : top, shrink = exp(largest[i] - base);
            largest[i] = top;
            for (int j = 0; j < R; j++) {
                weights[i][j] = exp(weights[i][j] - base);
                sum += weights[i][j];
            }
            sums[i] = sums[i] * shrink + sum;
            for (int j = 0; j < WIDTH / 16; j++) output[i][j] *= shrink;
        }
        if (DROPS)
            each(first, s, [&](int i, int j, int t, int s) { weights[i][j] *= kept(c, at, t, s); });
        add_weighted(output, shown, weights, values, strange && hides);
    }
    for (int i = 0; i < R; i++) {
        W sum = of_row<false>(sums[i]);
        factors[i] = sum == 0 ? 0 : 1 / sum;
        int t = first + own_row(i);
        // a query that sees nothing has weights 0 in backward
        if (threadIdx.x % 16 == 0 && t < c.queries)
            log_sums[at.row + t] = sum == 0 ? (W)INFINITY : largest[i] + log(sum);
    }
    write_rows(output, factors, y, at, first, c.queries);
}

// -- backward

// The gradient of a score, from its weight and that of its weight.
__device__ inline W dscore(W weight, W dweight, W total, bool hides) {
    return hides && weight == 0 ? 0 : weight * (dweight - total);
}

KERNEL __launch_bounds__(256) attention_tiles_dq(Heads q, Heads k, Heads v, Mask mask, Heads dy,
                                                 const W *log_sums, const W *totals, Heads dq,
                                                 Case c) {
    extern __shared__ uint4 memory[];
    W *queries = (W *)memory, *doutputs = queries + TILE * STRIDE;
    W *keys = doutputs + TILE * STRIDE, *values = keys + TILE * STRIDE;
    W *shown = values + TILE * STRIDE;
    int blocks = ceil_div(c.queries, TILE);
    Place at = place(c, blocks);
    int first = (blocks - 1 - at.tile) * TILE;
    int end = keys_before(c, min(first + TILE, c.queries) - 1);
    bool hides = MASKED || c.causal;
    read_tile(queries, q, at, first, c.queries);
    read_tile(doutputs, dy, at, first, c.queries);
    W sums[R][WIDTH / 16] = {}, log_sum[R], total[R], factors[R];
    for (int i = 0; i < R; i++) {
        int t = min(first + own_row(i), c.queries - 1);
        log_sum[i] = log_sums[at.row + t];
        total[i] = totals[at.row + t];
        factors[i] = (W)c.scale;
    }

    for (int s = 0; s < end; s += TILE) {
        __syncthreads();
        read_tile(values, v, at, s, c.keys);
        bool strange = __syncthreads_or(read_tile(keys, k, at, s, c.keys));
        W scores[R][R], dweights[R][R];
        dots(scores, queries, keys);
        dots(dweights, doutputs, values);
        each(first, s, [&](int i, int j, int t, int s) {
            W weight = exp((W)c.scale * scores[i][j] - log_sum[i]);
            if (!seen(c, mask, at, t, s)) weight = 0;
            scores[i][j] = dscore(weight, kept(c, at, t, s) * dweights[i][j], total[i], hides);
        });
        add_weighted(sums, shown, scores, keys, strange && hides);
    }
    write_rows(sums, factors, dq, at, first, c.queries);
}

// Scores are transposed here: a row is a key, a column a query.
KERNEL __launch_bounds__(256) attention_tiles_dkv(Heads q, Heads k, Heads v, Mask mask, Heads dy,
                                                  const W *log_sums, const W *totals, Heads dk,
                                                  Heads dv, Case c) {
    extern __shared__ uint4 memory[];
    W *keys = (W *)memory, *values = keys + TILE * STRIDE;
    W *queries = values + TILE * STRIDE, *doutputs = queries + TILE * STRIDE;
    W *shown = doutputs + TILE * STRIDE;
    Place at = place(c, ceil_div(c.keys, TILE));
    int first = at.tile * TILE;
    // the queries before `start` see none of these keys
    int start = c.causal ? max(0, first - (c.keys - c.queries)) / TILE * TILE : 0;
    bool hides = MASKED || c.causal;
    read_tile(keys, k, at, first, c.keys);
    read_tile(values, v, at, first, c.keys);
    W sums_k[R][WIDTH / 16] = {}, sums_v[R][WIDTH / 16] = {}, factors[R], ones[R];
    for (int i = 0; i < R; i++) factors[i] = (W)c.scale, ones[i] = 1;

    for (int t = start; t < c.queries; t += TILE) {
        __syncthreads();
        bool strange = read_tile(queries, q, at, t, c.queries);
        strange |= read_tile(doutputs, dy, at, t, c.queries);
        strange = __syncthreads_or(strange);
        W weights[R][R], dweights[R][R];
        dots(weights, keys, queries);
        dots(dweights, values, doutputs);
        each(first, t, [&](int i, int j, int s, int t) {
            bool sees = seen(c, mask, at, t, s);
            W log_sum = sees ? log_sums[at.row + t] : 0, total = sees ? totals[at.row + t] : 0;
            W weight = sees ? exp((W)c.scale * weights[i][j] - log_sum) : 0;
            W keep = kept(c, at, t, s);
            dweights[i][j] = dscore(weight, keep * dweights[i][j], total, hides);
            weights[i][j] = weight * keep;
        });
        add_weighted(sums_v, shown, weights, doutputs, strange && hides);
        add_weighted(sums_k, shown, dweights, queries, strange && hides);
    }
    write_rows(sums_k, factors, dk, at, first, c.keys);
    write_rows(sums_v, ones, dv, at, first, c.keys);
}
