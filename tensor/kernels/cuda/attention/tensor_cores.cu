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
// Counted as in plain.cu. A block has n = 128 queries, or keys for dk and dv.
//
//                                forward                           backward: dq; dk and dv
//   multiply-adds                2 D P = 25.8 G                    3 D P; 4 D P: 90.3 G
//   bytes of k and v by blocks   2 B H D T (T + n) / n: 0.45 GB    0.45 GB for each
//   shared bytes for a pair      4 D / 32 = 8                      6 D / 32 = 12; 12 D / 32 = 24
//   registers, bytes spilled     244, 0                            246, 0; 255, 8
//   shared memory of a block     55 KB                             55 KB; 56 KB
//   blocks a multiprocessor      2 of 128 threads                  2
//   time of the kernel alone     0.226 ms, 228 TFLOP/s             0.278 ms; 0.368 ms
//   with dropout                 0.401 ms                          0.478 ms; 0.574 ms
//
// A multiprocessor reads 128 bytes of shared memory in a cycle: 16 pairs forward, 4096 operations.
// That is also the most that its tensor cores do in a cycle, and mma.sync reaches about 60 % of it
// (Luo et al. 2024). The registers allow only two blocks at once. For D = 32 and 128 a thread has
// 114 and 255 registers forward, 148 and 255 for dq, 168 and 255 for dk and dv. For D = 128 some
// are spilled: 108 bytes forward, addresses of copies that are read again once a tile.
//
// Dropout costs 13.5 instructions for a weight: 9 for a quarter of a counter, whose ten rounds are
// 18 multiplications and 18 xors; 3 for the bits, and 1.5 for their use.
//
// The launcher defines M: a warp has 16 M queries, M = 1 or 2; M_KEYS, the same for the keys of dk
// and dv; BLOCKS that fit on a multiprocessor at once. A tile has 64 keys forward; in backward
// 64 / M keys, or 64 / M_KEYS queries.
//
// A value that a query may not see is multiplied by 0, where other queries of the tile see it. If
// the value is NaN or infinite, the query becomes NaN, as by cuDNN. Keys that a mask hides from all
// queries alike are read as zeros: nothing of them gets out.

constexpr int COLUMNS = 64;  // keys of a tile, forward
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

KERNEL __launch_bounds__(128, BLOCKS) attention_cores_forward(Heads q, Heads k, Heads v, Mask mask,
                                                              Heads y, W *log_sums, Case c) {
    extern __shared__ uint4 memory[];
    constexpr int ROWS = 16 * M * WARPS, TILE = COLUMNS * STRIDE;
    constexpr bool HELD = M * D <= 128;  // whether the queries stay in registers
    T *queries = (T *)memory, *tiles = queries + ROWS * STRIDE;  // k, v; k, v of the next
    int blocks = ceil_div(c.queries, ROWS);
    Place at = place(c, blocks);
    // the last queries see the most keys: their blocks begin first
    int first = (blocks - 1 - at.tile) * ROWS, own = first + 16 * M * warp();
    int end = keys_before(c, min(first + ROWS, c.queries) - 1);
    int own_end = keys_before(c, min(own + 16 * M, c.queries) - 1);
    T *own_q = queries + 16 * M * warp() * STRIDE;
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
        if (HELD && s == 0) hold(held, own_q);
        if (M > 1 && s >= own_end) continue;  // only other warps' queries see this tile
        unsigned kept[M][2];
        if (DROPS) kept_keys<COLUMNS / 8>(kept, c, at, own, s);
        float scores[M][COLUMNS / 8][4];
        dots(scores, [&](int m, int i) { return HELD ? held[m][i] : left(own_q, m, i); }, now);
        if (!all_seen<COLUMNS>(c, own, s))
            each<M, COLUMNS / 8>(own, s, [&](int m, int n, int i, int t, int s) {
                if (!seen(c, mask, at, t, s)) scores[m][n][i] = -INFINITY;
            });
        soften(scores, largest, sums, output, scale);
        if (DROPS)
            each<M, COLUMNS / 8>(0, 0, [&](int m, int n, int i, int, int) {
                if (!bit(kept[m][i / 2], n, i % 2)) scores[m][n][i] = 0;
            });
        add_weighted(output, scores, now + TILE);
    }
    wait_for_copies();
    __syncthreads();  // the queries lie where y is written
    float factors[M][2], factor = (float)c.factor;
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float sum = sums[m][half];
            sum += __shfl_xor_sync(ALL, sum, 1);
            sum += __shfl_xor_sync(ALL, sum, 2);
            factors[m][half] = sum == 0 ? 0 : factor / sum;
            int t = own + 16 * m + lane() / 4 + 8 * half;
            // a query that sees nothing has weights 0 in backward
            if (lane() % 4 == 0 && t < c.queries)
                log_sums[at.row + t] =
                    sum == 0 ? INFINITY : largest[m][half] * scale + log2f(sum);
        }
    write_rows(output, factors, own_q, y, at, own, c.queries);
}

// -- backward

KERNEL __launch_bounds__(128, BLOCKS) attention_cores_dq(Heads q, Heads k, Heads v, Mask mask,
                                                         Heads dy, const W *log_sums,
                                                         const W *totals, Heads dq, Case c) {
    extern __shared__ uint4 memory[];
    constexpr int ROWS = 16 * M * WARPS, KEYS = 64 / M, TILE = KEYS * STRIDE;
    constexpr bool HELD = D <= 64;
    T *queries = (T *)memory, *doutputs = queries + ROWS * STRIDE;
    T *tiles = doutputs + ROWS * STRIDE;  // k, v; k, v of the next
    int blocks = ceil_div(c.queries, ROWS);
    Place at = place(c, blocks);
    int first = (blocks - 1 - at.tile) * ROWS, own = first + 16 * M * warp();
    int end = keys_before(c, min(first + ROWS, c.queries) - 1);
    int own_end = keys_before(c, min(own + 16 * M, c.queries) - 1);
    T *own_q = queries + 16 * M * warp() * STRIDE, *own_dy = own_q + ROWS * STRIDE;
    float scale = (float)c.scale * LOG2_E, factor = DROPS ? (float)c.factor : 1;

    auto is_query = [&](int t) { return t < c.queries; };
    auto is_key = [&](int s) { return s < c.keys && !hidden(c, mask, at, s); };
    copy_rows<ROWS>(queries, q, at, first, is_query);
    copy_rows<ROWS>(doutputs, dy, at, first, is_query);
    copy_rows<KEYS>(tiles, k, at, 0, is_key);
    copy_rows<KEYS>(tiles + TILE, v, at, 0, is_key);
    Fragment held_q[M][D / 16], held_dy[M][D / 16];
    float sums[M][D / 8][4] = {}, log_sum[M][2], total[M][2];
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int t = min(own + 16 * m + lane() / 4 + 8 * half, c.queries - 1);
            log_sum[m][half] = log_sums[at.row + t];
            total[m][half] = totals[at.row + t];
        }

    for (int s = 0; s < end; s += KEYS) {
        wait_for_copies();
        __syncthreads();
        int turn = s / KEYS % 2;
        T *now = tiles + 2 * turn * TILE, *next = tiles + 2 * (1 - turn) * TILE;
        if (s + KEYS < end) {
            copy_rows<KEYS>(next, k, at, s + KEYS, is_key);
            copy_rows<KEYS>(next + TILE, v, at, s + KEYS, is_key);
        }
        if (HELD && s == 0) {
            hold(held_q, own_q);
            hold(held_dy, own_dy);
        }
        if (M > 1 && s >= own_end) continue;
        unsigned kept[M][2];
        if (DROPS) kept_keys<KEYS / 8>(kept, c, at, own, s);
        float scores[M][KEYS / 8][4], dweights[M][KEYS / 8][4];
        dots(scores, [&](int m, int i) { return HELD ? held_q[m][i] : left(own_q, m, i); }, now);
        dots(
            dweights, [&](int m, int i) { return HELD ? held_dy[m][i] : left(own_dy, m, i); },
            now + TILE);
        if (!all_seen<KEYS>(c, own, s))
            each<M, KEYS / 8>(own, s, [&](int m, int n, int i, int t, int s) {
                if (!seen(c, mask, at, t, s)) scores[m][n][i] = -INFINITY;
            });
        each<M, KEYS / 8>(0, 0, [&](int m, int n, int i, int, int) {
            float weight = power_of_2(scores[m][n][i] * scale - log_sum[m][i / 2]);
            float dscore = dweights[m][n][i] * factor - total[m][i / 2];
            if (DROPS && !bit(kept[m][i / 2], n, i % 2)) dscore = -total[m][i / 2];
            dweights[m][n][i] = weight * dscore;
        });
        add_weighted(sums, dweights, now);
    }
    wait_for_copies();
    __syncthreads();
    write_rows(sums, (float)c.scale, own_q, dq, at, own, c.queries);
}

// Scores are transposed here: a row is a key, a column a query.
KERNEL __launch_bounds__(128, BLOCKS) attention_cores_dkv(Heads q, Heads k, Heads v, Mask mask,
                                                          Heads dy, const W *log_sums,
                                                          const W *totals, Heads dk, Heads dv,
                                                          Case c) {
    extern __shared__ uint4 memory[];
    constexpr int R = M_KEYS, ROWS = 16 * R * WARPS, QUERIES = 64 / R, TILE = QUERIES * STRIDE;
    constexpr bool HELD = R * D <= 64;
    T *keys = (T *)memory, *values = keys + ROWS * STRIDE;
    T *tiles = values + ROWS * STRIDE;             // q, dy; q, dy of the next
    float *numbers = (float *)(tiles + 4 * TILE);  // log-sums, totals; those of the next
    Place at = place(c, ceil_div(c.keys, ROWS));
    int first = at.tile * ROWS, own = first + 16 * R * warp();
    // the queries before `start` see none of these keys
    int start = max(0, first_query(c, first)) / QUERIES * QUERIES;
    T *own_k = keys + 16 * R * warp() * STRIDE, *own_v = own_k + ROWS * STRIDE;
    float scale = (float)c.scale * LOG2_E, factor = DROPS ? (float)c.factor : 1;

    auto is_query = [&](int t) { return t < c.queries; };
    auto is_key = [&](int s) { return s < c.keys && !hidden(c, mask, at, s); };
    copy_rows<ROWS>(keys, k, at, first, is_key);
    copy_rows<ROWS>(values, v, at, first, is_key);
    auto copy_tile = [&](int t) {
        int turn = t / QUERIES % 2;
        copy_rows<QUERIES>(tiles + 2 * turn * TILE, q, at, t, is_query);
        copy_rows<QUERIES>(tiles + (2 * turn + 1) * TILE, dy, at, t, is_query);
        copy_numbers<QUERIES>(numbers + 2 * turn * QUERIES, log_sums + at.row, t, c.queries);
        copy_numbers<QUERIES>(numbers + (2 * turn + 1) * QUERIES, totals + at.row, t, c.queries);
    };
    copy_tile(start);
    Fragment held_k[R][D / 16], held_v[R][D / 16];
    float sums_k[R][D / 8][4] = {}, sums_v[R][D / 8][4] = {};

    for (int t = start; t < c.queries; t += QUERIES) {
        wait_for_copies();
        __syncthreads();
        int turn = t / QUERIES % 2;
        const T *now = tiles + 2 * turn * TILE;
        const float *log_sum = numbers + 2 * turn * QUERIES, *total = log_sum + QUERIES;
        if (t + QUERIES < c.queries) copy_tile(t + QUERIES);
        if (HELD && t == start) {
            hold(held_k, own_k);
            hold(held_v, own_v);
        }
        if (R > 1 && t + QUERIES <= first_query(c, own)) continue;
        unsigned kept[R][4];
        if (DROPS) kept_queries<QUERIES / 8>(kept, c, at, own, t);
        float weights[R][QUERIES / 8][4], dweights[R][QUERIES / 8][4];
        dots(weights, [&](int m, int i) { return HELD ? held_k[m][i] : left(own_k, m, i); }, now);
        dots(
            dweights, [&](int m, int i) { return HELD ? held_v[m][i] : left(own_v, m, i); },
            now + TILE);
        if (t + QUERIES > c.queries || !all_seen<16 * R>(c, t, own))
            each<R, QUERIES / 8>(own, t, [&](int m, int n, int i, int s, int t) {
                bool sees = first_query(c, s) <= t && t < c.queries && s < c.keys;
                if (!sees || !allowed(mask, at, t, s)) weights[m][n][i] = -INFINITY;
            });
        each<R, QUERIES / 8>(0, 0, [&](int m, int n, int i, int, int column) {
            float weight = power_of_2(weights[m][n][i] * scale - log_sum[column]);
            float dscore = dweights[m][n][i] * factor - total[column];
            bool drops = DROPS && !bit(kept[m][i], n, 0);
            dweights[m][n][i] = weight * (drops ? -total[column] : dscore);
            weights[m][n][i] = drops ? 0 : weight;
        });
        add_weighted(sums_v, weights, now + TILE);
        add_weighted(sums_k, dweights, now);
    }
    wait_for_copies();
    __syncthreads();
    write_rows(sums_k, (float)c.scale, own_k, dk, at, own, c.keys);
    write_rows(sums_v, factor, own_v, dv, at, own, c.keys);
}
