// Attention on tensor cores, for 16 bits.   Dao 2023, "FlashAttention-2"; the formulas: plain.cu
//
// q, y: (B, H, queries, D)   k, v: (B, H, keys, D)   log_sums, totals: (B, H, queries), log_sums to
// base 2: weight = 2^(score log2(e) - log_sum)
//
// New here: a block of 4 warps works on a tile of rows, and goes along tiles of the other side,
// which lie in shared memory; the next tile is copied while this one is multiplied. Each warp has
// rows of its own, 16 or 32, and multiplies 16 x 16 by 16 x 8 numbers at once. Scores and weights
// stay in its registers: the sums of one product are, rounded, the left operand of the next.
// Tiles that no query sees are skipped.
//
// Counted as in plain.cu. A block has n = 128 queries forward, 64 queries or keys backward.
//
//                                forward                           backward: dq; dk and dv
//   multiply-adds                2 D P = 25.8 G                    3 D P; 4 D P: 90.3 G
//   bytes of k and v by blocks   2 B H D T (T + n) / n: 0.45 GB    0.86 GB for each
//   shared bytes for a pair      4 D / 32 = 8                      6 D / 16 = 24; 8 D / 16 = 32
//   registers, bytes spilled     250, 0                            234, 0; 248, 0
//   shared memory of a block     55 KB                             55 KB; 56 KB
//   blocks a multiprocessor      2 of 128 threads                  2
//   time, rate                   0.261 ms, 197 TFLOP/s             0.836 ms, 154 TFLOP/s
//
// A multiprocessor reads 128 bytes of shared memory in a cycle: 16 pairs forward, 4096 operations.
// That is also the most that its tensor cores do in a cycle, and mma.sync reaches about 60 % of it
// (Luo et al. 2024). The registers allow only two blocks at once. For D = 32 and 128 a thread has
// 190 and 255 registers forward, 154 and 200 for dq, 186 and 244 for dk and dv, none spilled.

// The launcher defines M, the 16 queries of a warp forward, times 1 or 2; BACK, the queries or keys
// of a tile in backward; BLOCKS, those of backward that fit on a multiprocessor at once.
//
// A value that a query may not see is multiplied by 0, where other queries of the tile see it. If
// the value is NaN or infinite, the query becomes NaN, as by cuDNN. Keys that a mask hides from all
// queries alike are read as zeros: nothing of them gets out.

constexpr int COLUMNS = 64;     // keys of a tile, forward
constexpr bool HELD = D <= 64;  // whether backward holds its own rows in registers
constexpr float LOG2_E = 1.44269504f;

// Whether queries from `t` on all see the COUNT keys from `s` on.
template <int COUNT> __device__ inline bool all_seen(const Case &c, int t, int s) {
    return !MASKED && s + COUNT <= keys_before(c, t);
}

// -- forward

// The online softmax of scores of a warp: they become weights, to be divided by the sums. `sums`
// are of the columns of this lane; `y` shrinks as the sums do.
__device__ inline void soften(float (&scores)[M][COLUMNS / 8][4], float (&largest)[M][2],
                              float (&sums)[M][2], float (&y)[M][D / 8][4], float scale) {
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float top = largest[m][half];
#pragma unroll
            for (int n = 0; n < COLUMNS / 8; n++)
                top = fmaxf(top, fmaxf(scores[m][n][2 * half], scores[m][n][2 * half + 1]));
            // the four lanes of a row
            top = fmaxf(top, __shfl_xor_sync(ALL, top, 1));
            top = fmaxf(top, __shfl_xor_sync(ALL, top, 2));
            float base = top == -INFINITY ? 0 : top * scale;
            float shrink = power_of_2(largest[m][half] * scale - base), sum = 0;
            largest[m][half] = top;
#pragma unroll
            for (int n = 0; n < COLUMNS / 8; n++)
#pragma unroll
                for (int i = 2 * half; i < 2 * half + 2; i++) {
                    scores[m][n][i] = power_of_2(scores[m][n][i] * scale - base);
                    sum += scores[m][n][i];
                }
            sums[m][half] = sums[m][half] * shrink + sum;
#pragma unroll
            for (int d = 0; d < D / 8; d++)
#pragma unroll
                for (int i = 2 * half; i < 2 * half + 2; i++) y[m][d][i] *= shrink;
        }
}

// Dropout of weights, or of their gradients.   t, s: query and key of the first
template <int R, int N>
__device__ inline void drop(float (&weights)[R][N][4], const Case &c, const Place &at, int t,
                            int s) {
    each<R, N>(t, s, [&](int m, int n, int i, int t, int s) {
        if (i % 2) return;
        Two keep = kept_two(c, at, t, s);
        weights[m][n][i] *= keep.first;
        weights[m][n][i + 1] *= keep.second;
    });
}

KERNEL __launch_bounds__(128, 2) attention_cores_forward(Heads q, Heads k, Heads v, Mask mask,
                                                         Heads y, W *log_sums, Case c) {
    extern __shared__ uint4 memory[];
    constexpr int ROWS = 16 * M * WARPS, TILE = COLUMNS * STRIDE;
    T *queries = (T *)memory, *tiles = queries + ROWS * STRIDE;  // k, v; k, v of the next
    int blocks = ceil_div(c.queries, ROWS);
    Place at = place(c, blocks);
    // the last queries see the most keys: their blocks begin first
    int first = (blocks - 1 - at.tile) * ROWS, own = first + 16 * M * warp();
    int end = keys_before(c, min(first + ROWS, c.queries) - 1);
    int own_end = keys_before(c, min(own + 16 * M, c.queries) - 1);
    T *own_rows = queries + 16 * M * warp() * STRIDE;
    float scale = (float)c.scale * LOG2_E;

    auto is_query = [&](int t) { return t < c.queries; };
    auto is_key = [&](int s) { return s < c.keys && !hidden(c, mask, at, s); };
    copy_rows<ROWS>(queries, q, at, first, is_query);
    copy_rows<COLUMNS>(tiles, k, at, 0, is_key);
    copy_rows<COLUMNS>(tiles + TILE, v, at, 0, is_key);
    Fragment held[M][D / 16];
    float output[M][D / 8][4] = {}, largest[M][2], sums[M][2] = {};
#pragma unroll
    for (int m = 0; m < M; m++) largest[m][0] = largest[m][1] = -INFINITY;

    for (int s = 0; s < end; s += COLUMNS) {
        wait_for_copies();
        __syncthreads();  // the tile is there, and nobody reads the other one
        int turn = s / COLUMNS % 2;
        T *now = tiles + 2 * turn * TILE, *next = tiles + 2 * (1 - turn) * TILE;
        if (s + COLUMNS < end) {
            copy_rows<COLUMNS>(next, k, at, s + COLUMNS, is_key);
            copy_rows<COLUMNS>(next + TILE, v, at, s + COLUMNS, is_key);
        }
        if (s == 0) {
#pragma unroll
            for (int m = 0; m < M; m++)
#pragma unroll
                for (int step = 0; step < D / 16; step++)
                    held[m][step] = left(own_rows + 16 * m * STRIDE, step);
        }
        if (s >= own_end) continue;  // only other warps' queries see this tile
        float scores[M][COLUMNS / 8][4];
        dots(scores, [&](int m, int step) { return held[m][step]; }, now);
        if (!all_seen<COLUMNS>(c, own, s))
            each<M, COLUMNS / 8>(own, s, [&](int m, int n, int i, int t, int s) {
                if (!seen(c, mask, at, t, s)) scores[m][n][i] = -INFINITY;
            });
        soften(scores, largest, sums, output, scale);
        if (DROPS) drop<M, COLUMNS / 8>(scores, c, at, own, s);
        add_weighted(output, scores, now + TILE);
    }
    wait_for_copies();
    __syncthreads();  // the queries lie where y is written
    float factors[M][2];
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float sum = sums[m][half];
            sum += __shfl_xor_sync(ALL, sum, 1);
            sum += __shfl_xor_sync(ALL, sum, 2);
            factors[m][half] = sum == 0 ? 0 : 1 / sum;
            int t = own + 16 * m + lane() / 4 + 8 * half;
            // a query that sees nothing has weights 0 in backward
            if (lane() % 4 == 0 && t < c.queries)
                log_sums[at.row + t] =
                    sum == 0 ? INFINITY : largest[m][half] * scale + log2f(sum);
        }
    write_rows<M>(output, factors, own_rows, y, at, own, c.queries);
}

// -- backward

KERNEL __launch_bounds__(128, BLOCKS) attention_cores_dq(Heads q, Heads k, Heads v, Mask mask,
                                                         Heads dy, const W *log_sums,
                                                         const W *totals, Heads dq, Case c) {
    extern __shared__ uint4 memory[];
    constexpr int ROWS = 16 * WARPS, TILE = BACK * STRIDE;
    T *queries = (T *)memory, *doutputs = queries + ROWS * STRIDE;
    T *tiles = doutputs + ROWS * STRIDE;  // k, v; k, v of the next
    int blocks = ceil_div(c.queries, ROWS);
    Place at = place(c, blocks);
    int first = (blocks - 1 - at.tile) * ROWS, own = first + 16 * warp();
    int end = keys_before(c, min(first + ROWS, c.queries) - 1);
    T *own_q = queries + 16 * warp() * STRIDE, *own_dy = doutputs + 16 * warp() * STRIDE;
    float scale = (float)c.scale * LOG2_E;

    auto is_query = [&](int t) { return t < c.queries; };
    auto is_key = [&](int s) { return s < c.keys && !hidden(c, mask, at, s); };
    copy_rows<ROWS>(queries, q, at, first, is_query);
    copy_rows<ROWS>(doutputs, dy, at, first, is_query);
    copy_rows<BACK>(tiles, k, at, 0, is_key);
    copy_rows<BACK>(tiles + TILE, v, at, 0, is_key);
    Fragment held_q[D / 16], held_dy[D / 16];
    float sums[1][D / 8][4] = {}, log_sum[2], total[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int t = min(own + lane() / 4 + 8 * half, c.queries - 1);
        log_sum[half] = log_sums[at.row + t];
        total[half] = totals[at.row + t];
    }

    for (int s = 0; s < end; s += BACK) {
        wait_for_copies();
        __syncthreads();
        int turn = s / BACK % 2;
        T *now = tiles + 2 * turn * TILE, *next = tiles + 2 * (1 - turn) * TILE;
        if (s + BACK < end) {
            copy_rows<BACK>(next, k, at, s + BACK, is_key);
            copy_rows<BACK>(next + TILE, v, at, s + BACK, is_key);
        }
        if (HELD && s == 0) {
#pragma unroll
            for (int step = 0; step < D / 16; step++) {
                held_q[step] = left(own_q, step);
                held_dy[step] = left(own_dy, step);
            }
        }
        float scores[1][BACK / 8][4], dweights[1][BACK / 8][4];
        dots(scores, [&](int, int i) { return HELD ? held_q[i] : left(own_q, i); }, now);
        dots(dweights, [&](int, int i) { return HELD ? held_dy[i] : left(own_dy, i); }, now + TILE);
        if (!all_seen<BACK>(c, own, s))
            each<1, BACK / 8>(own, s, [&](int, int n, int i, int t, int s) {
                if (!seen(c, mask, at, t, s)) scores[0][n][i] = -INFINITY;
            });
        if (DROPS) drop<1, BACK / 8>(dweights, c, at, own, s);
        each<1, BACK / 8>(own, s, [&](int, int n, int i, int, int) {
            float weight = power_of_2(scores[0][n][i] * scale - log_sum[i / 2]);
            dweights[0][n][i] = weight * (dweights[0][n][i] - total[i / 2]);
        });
        add_weighted(sums, dweights, now);
    }
    wait_for_copies();
    __syncthreads();
    float factors[1][2] = {{(float)c.scale, (float)c.scale}};
    write_rows<1>(sums, factors, own_q, dq, at, own, c.queries);
}

// Scores are transposed here: a row is a key, a column a query.
KERNEL __launch_bounds__(128, BLOCKS) attention_cores_dkv(Heads q, Heads k, Heads v, Mask mask,
                                                          Heads dy, const W *log_sums,
                                                          const W *totals, Heads dk, Heads dv,
                                                          Case c) {
    extern __shared__ uint4 memory[];
    constexpr int ROWS = 16 * WARPS, TILE = BACK * STRIDE;
    T *keys = (T *)memory, *values = keys + ROWS * STRIDE;
    T *tiles = values + ROWS * STRIDE;              // q, dy; q, dy of the next
    float *numbers = (float *)(tiles + 4 * TILE);  // log-sums, totals; those of the next
    Place at = place(c, ceil_div(c.keys, ROWS));
    int first = at.tile * ROWS, own = first + 16 * warp();
    // the queries before `start` see none of these keys
    int start = c.causal ? max(0, first - (c.keys - c.queries)) / BACK * BACK : 0;
    T *own_k = keys + 16 * warp() * STRIDE, *own_v = values + 16 * warp() * STRIDE;
    float scale = (float)c.scale * LOG2_E;

    auto is_query = [&](int t) { return t < c.queries; };
    auto is_key = [&](int s) { return s < c.keys && !hidden(c, mask, at, s); };
    copy_rows<ROWS>(keys, k, at, first, is_key);
    copy_rows<ROWS>(values, v, at, first, is_key);
    auto copy_tile = [&](int t) {
        int turn = t / BACK % 2;
        copy_rows<BACK>(tiles + 2 * turn * TILE, q, at, t, is_query);
        copy_rows<BACK>(tiles + (2 * turn + 1) * TILE, dy, at, t, is_query);
        copy_numbers<BACK>(numbers + 2 * turn * BACK, log_sums + at.row, t, c.queries);
        copy_numbers<BACK>(numbers + (2 * turn + 1) * BACK, totals + at.row, t, c.queries);
    };
    copy_tile(start);
    Fragment held_k[D / 16], held_v[D / 16];
    float sums_k[1][D / 8][4] = {}, sums_v[1][D / 8][4] = {};

    for (int t = start; t < c.queries; t += BACK) {
        wait_for_copies();
        __syncthreads();
        int turn = t / BACK % 2;
        const T *now = tiles + 2 * turn * TILE;
        const float *log_sum = numbers + 2 * turn * BACK, *total = log_sum + BACK;
        if (t + BACK < c.queries) copy_tile(t + BACK);
        if (HELD && t == start) {
#pragma unroll
            for (int step = 0; step < D / 16; step++) {
                held_k[step] = left(own_k, step);
                held_v[step] = left(own_v, step);
            }
        }
        float weights[1][BACK / 8][4], dweights[1][BACK / 8][4];
        dots(weights, [&](int, int i) { return HELD ? held_k[i] : left(own_k, i); }, now);
        dots(dweights, [&](int, int i) { return HELD ? held_v[i] : left(own_v, i); }, now + TILE);
        if (t + BACK > c.queries || !all_seen<16>(c, t, own))
            each<1, BACK / 8>(own, t, [&](int, int n, int i, int s, int t) {
                if (!seen(c, mask, at, t, s)) weights[0][n][i] = -INFINITY;
            });
        each<1, BACK / 8>(own, 0, [&](int, int n, int i, int s, int column) {
            float weight = power_of_2(weights[0][n][i] * scale - log_sum[column]);
            float keep = kept(c, at, t + column, s);
            dweights[0][n][i] = weight * (dweights[0][n][i] * keep - total[column]);
            weights[0][n][i] = weight * keep;
        });
        add_weighted(sums_v, weights, now + TILE);
        add_weighted(sums_k, dweights, now);
    }
    wait_for_copies();
    __syncthreads();
    float factors[1][2] = {{(float)c.scale, (float)c.scale}}, ones[1][2] = {{1, 1}};
    write_rows<1>(sums_k, factors, own_k, dk, at, own, c.keys);
    write_rows<1>(sums_v, ones, own_v, dv, at, own, c.keys);
}
