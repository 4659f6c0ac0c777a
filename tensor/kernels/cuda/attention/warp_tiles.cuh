// Products of tiles by a warp, on tensor cores, and dropout of them. From row to row in shared
// memory are D + 8 elements, so 8 rows of 16 bytes lie in different banks, for every D that is a
// multiple of 16. The sums of one product are, rounded, the left operand of the next: they stay in
// registers.

constexpr int WARPS = 4, THREADS = 32 * WARPS;
constexpr int STRIDE = D + 8;  // elements from row to row in shared memory

__device__ inline int lane() { return threadIdx.x % 32; }
__device__ inline int warp() { return threadIdx.x / 32; }

// Starts to copy rows `first` to `first` + ROWS of a head; where there(row) is false, zeros.
template <int ROWS, class There>
__device__ inline void copy_rows(T *tile, const Heads &x, const Place &at, int first, There there) {
    constexpr int CHUNKS = D / 8, STEP = THREADS / CHUNKS;  // of 16 bytes in a row; rows at once
    int row = threadIdx.x / CHUNKS, column = threadIdx.x % CHUNKS * 8;
    if (THREADS % CHUNKS && row == STEP) return;
    T *to = tile + row * STRIDE + column;
    const T *from = x.at(at.b, at.h, first + row) + column;
#pragma unroll
    for (int i = 0; i < ROWS; i += STEP)
        if (ROWS % STEP == 0 || row + i < ROWS)
            start_copy<16>(to + i * STRIDE, from + i * x.row, there(first + row + i));
}

// The numbers of COUNT queries, from query `first` of a head.
template <int COUNT>
__device__ inline void copy_numbers(float *to, const float *from, int first, int end) {
    int t = first + threadIdx.x;
    if (threadIdx.x < COUNT) start_copy<4>(to + threadIdx.x, from + t, t < end);
}

// Rows 16 m to 16 m + 15 of a tile, columns 16 step to 16 step + 15, as a left operand.
__device__ inline Fragment left(const T *rows, int m, int step) {
    return load_matrices(rows + (16 * m + lane() % 16) * STRIDE + lane() / 16 * 8 + 16 * step);
}

// The left operands of 16 R rows.
template <int R> __device__ inline void hold(Fragment (&held)[R][D / 16], const T *rows) {
#pragma unroll
    for (int m = 0; m < R; m++)
#pragma unroll
        for (int step = 0; step < D / 16; step++) held[m][step] = left(rows, m, step);
}

// sums = rows . columns, over D: a row of each for every element.
//   sums: 16 m rows x 8 n columns   rows(m, step): a left operand   columns: a tile of 8 N rows
template <int R, int N, class Rows>
__device__ inline void dots(float (&sums)[R][N][4], Rows rows, const T *columns) {
#pragma unroll
    for (int m = 0; m < R; m++)
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) sums[m][n][i] = 0;
    const T *from = columns + (lane() / 16 * 8 + lane() % 8) * STRIDE + lane() / 8 % 2 * 8;
#pragma unroll
    for (int step = 0; step < D / 16; step++) {
        Fragment a[R];
#pragma unroll
        for (int m = 0; m < R; m++) a[m] = rows(m, step);
#pragma unroll
        for (int n = 0; n < N; n += 2) {
            Fragment b = load_matrices(from + 8 * n * STRIDE + 16 * step);
#pragma unroll
            for (int m = 0; m < R; m++) {
                multiply_add(sums[m][n], a[m], b.x[0], b.x[1]);
                multiply_add(sums[m][n + 1], a[m], b.x[2], b.x[3]);
            }
        }
    }
}

// sums += weights x, a weighted sum of the rows of a tile: the weights are sums of `dots`.
//   sums: 16 m rows x D columns   weights: 16 m rows x 8 n   x: a tile of 8 N rows
template <int R, int N>
__device__ inline void add_weighted(float (&sums)[R][D / 8][4], const float (&weights)[R][N][4],
                                    const T *x) {
    const T *from = x + lane() % 16 * STRIDE + lane() / 16 * 8;
#pragma unroll
    for (int n = 0; n < N; n += 2) {
        Fragment a[R];
#pragma unroll
        for (int m = 0; m < R; m++) {
            const float(&one)[4] = weights[m][n], (&next)[4] = weights[m][n + 1];
            a[m] = {rounded(one[0], one[1]), rounded(one[2], one[3]), rounded(next[0], next[1]),
                    rounded(next[2], next[3])};
        }
#pragma unroll
        for (int d = 0; d < D / 8; d += 2) {
            Fragment b = load_transposed(from + 8 * n * STRIDE + 8 * d);
#pragma unroll
            for (int m = 0; m < R; m++) {
                multiply_add(sums[m][d], a[m], b.x[0], b.x[1]);
                multiply_add(sums[m][d + 1], a[m], b.x[2], b.x[3]);
            }
        }
    }
}

// Writes 16 R rows of a warp from row `first`, those before `end`, each times its factor.
//   stage: shared memory for them, that only this warp uses   factors: of rows r and r + 8
template <int R>
__device__ inline void write_rows(const float (&sums)[R][D / 8][4], const float (&factors)[R][2],
                                  T *stage, const Heads &to, const Place &at, int first, int end) {
    int r = lane() / 4, c = lane() % 4 * 2;
#pragma unroll
    for (int m = 0; m < R; m++)
#pragma unroll
        for (int d = 0; d < D / 8; d++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const float *x = &sums[m][d][2 * half], f = factors[m][half];
                T *place = stage + (16 * m + r + 8 * half) * STRIDE + 8 * d + c;
                *reinterpret_cast<unsigned *>(place) = rounded(x[0] * f, x[1] * f);
            }
    __syncwarp();
    constexpr int CHUNKS = D / 8;
#pragma unroll
    for (int i = lane(); i < 16 * R * CHUNKS; i += 32) {
        int row = i / CHUNKS, column = i % CHUNKS * 8;
        if (first + row < end) {
            T *place = to.at(at.b, at.h, first + row) + column;
            const T *from = stage + row * STRIDE + column;
            *reinterpret_cast<uint4 *>(place) = *reinterpret_cast<const uint4 *>(from);
        }
    }
}

// The same with one factor.
template <int R>
__device__ inline void write_rows(const float (&sums)[R][D / 8][4], float factor, T *stage,
                                  const Heads &to, const Place &at, int first, int end) {
    float factors[R][2];
#pragma unroll
    for (int m = 0; m < R; m++) factors[m][0] = factors[m][1] = factor;
    write_rows(sums, factors, stage, to, at, first, end);
}

// f(m, n, i, row, column) for each element i of `dots`; the first has the given row and column.
template <int R, int N, class F> __device__ inline void each(int row, int column, F f) {
    int r = row + lane() / 4, c = column + lane() % 4 * 2;
#pragma unroll
    for (int m = 0; m < R; m++)
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) f(m, n, i, r + 16 * m + i / 2 * 8, c + 8 * n + i % 2);
}

// -- dropout: 32 bits of a lane

// Whether an element of columns 8 n to 8 n + 7 is kept.   column: 0 or 1, a lane's first or second
__device__ inline bool bit(unsigned kept, int n, int column) {
    return kept >> (4 * n + column) & 1;
}

// A counter serves four keys, which several lanes have: a lane makes the bits of one counter for
// each n, and reads the others'. Here rows are queries, from t, and columns keys, from s.
//   kept: of rows r and r + 8
template <int N, int R>
__device__ inline void kept_keys(unsigned (&kept)[R][2], const Case &c, const Place &at, int t,
                                 int s) {
    // lanes 2 i and 2 i + 1 have the same four keys, in the same two rows
    int turn = lane() % 2, query = t + lane() / 4 + 8 * turn, key = s + lane() % 4 / 2 * 4;
#pragma unroll
    for (int m = 0; m < R; m++) {
        unsigned made = kept_bits<N>(c, at, query + 16 * m, key, 0, 8);
#pragma unroll
        for (int i = 0; i < 2; i++)
            kept[m][i] = __shfl_sync(ALL, made, (lane() & ~1) + i) >> 2 * turn;
    }
}

// Here rows are keys, from s, and columns queries, from t.   kept: of each element of `dots`
template <int N, int R>
__device__ inline void kept_queries(unsigned (&kept)[R][4], const Case &c, const Place &at, int s,
                                    int t) {
    // lanes l, l + 4, l + 8 and l + 12 have the same two queries, and keys of the same two fours
    int turn = lane() / 4 % 4, query = t + lane() % 4 * 2 + turn % 2;
    int key = s + lane() / 16 * 4 + turn / 2 * 8;
#pragma unroll
    for (int m = 0; m < R; m++) {
        unsigned made = kept_bits<N>(c, at, query, key + 16 * m, 8, 0);
#pragma unroll
        for (int i = 0; i < 4; i++)
            kept[m][i] = __shfl_sync(ALL, made, (lane() & ~12) + 4 * i) >> turn;
    }
}
