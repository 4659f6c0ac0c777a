// What the versions of attention share: where the rows lie, what may be seen, and dropout.
//
// The launcher defines, beside T, W and V:
//
//   D       the numbers of a head
//   MASKED  whether there is a mask
//   DROPS   whether weights are dropped

#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif

// (B, H, rows, D) elements somewhere in memory; the strides are counted in elements.
struct Heads {
    T *start;
    long long batch, head, row;

    __device__ T *at(int b, int h, int t) const {
        return start + b * batch + h * head + t * row;
    }
};

// Bools (B, H, queries, keys), true where looking is allowed; a stride is 0 where all are alike.
struct Mask {
    const bool *start;
    long long batch, head, query, key;
};

struct Case {
    double scale;   // of the scores
    double factor;  // of the weights that dropout keeps: 1 / (1 - p)
    int heads, queries, keys, causal;
    unsigned threshold;  // of dropout
    Key key;
};

// What a block works on: a tile of rows of one head.
struct Place {
    int b, h, tile;
    long long row;  // of (B, H, queries): that of query 0
};

// Blocks that run side by side work on the same head, so they read the same keys.
__device__ inline Place place(const Case &c, int tiles) {
    int head = blockIdx.x / tiles;
    return {head / c.heads, head % c.heads, (int)(blockIdx.x % tiles), (long long)head * c.queries};
}

__device__ inline int ceil_div(int a, int b) { return (a + b - 1) / b; }

// Query t sees the keys before this one, so far as the mask allows: the last query sees all.
__device__ inline int keys_before(const Case &c, int t) {
    return c.causal ? min(c.keys, max(0, t + 1 + c.keys - c.queries)) : c.keys;
}

// Key s is seen by the queries from this one on, so far as the mask allows.
__device__ inline int first_query(const Case &c, int s) {
    return c.causal ? s - (c.keys - c.queries) : 0;
}

__device__ inline bool allowed(const Mask &mask, const Place &at, int t, int s) {
    if (!MASKED) return true;
    return mask.start[at.b * mask.batch + at.h * mask.head + t * mask.query + s * mask.key];
}

__device__ inline bool seen(const Case &c, const Mask &mask, const Place &at, int t, int s) {
    return t < c.queries && s < keys_before(c, t) && allowed(mask, at, t, s);
}

// Whether the mask hides key s from all queries alike: a padding mask, (B, 1, 1, keys).
__device__ inline bool hidden(const Case &c, const Mask &mask, const Place &at, int s) {
    return MASKED && mask.query == 0 && s < c.keys && !seen(c, mask, at, c.queries - 1, s);
}

// The place of a weight of a sample, counted over (H, queries, keys). Weight i has word i % 4 of
// counter i / 4: as in dropout.cu.
__device__ inline unsigned long long place_of(const Case &c, const Place &at, int t, int s) {
    return ((unsigned long long)at.h * c.queries + t) * c.keys + s;
}

// What dropout multiplies the weight of query t and key s by: 0 or 1 / (1 - p).
__device__ inline W kept(const Case &c, const Place &at, int t, int s) {
    if (!DROPS) return 1;
    unsigned long long i = place_of(c, at, t, s);
    return word(c.key.words(i / 4, at.b), i % 4) >= c.threshold ? (W)c.factor : (W)0;
}

// Whether dropout keeps four weights, those of a counter: a bit each.
__device__ inline unsigned kept_bits(const Case &c, const Place &at, unsigned counter) {
    uint4 words = c.key.words(counter, at.b);
    unsigned bits = words.x >= c.threshold;
    if (words.y >= c.threshold) bits |= 2;
    if (words.z >= c.threshold) bits |= 4;
    if (words.w >= c.threshold) bits |= 8;
    return bits;
}

// The same for N times the keys s to s + 3 of query t, four bits each; from one to the next are
// `queries` queries and `keys` keys.   s, keys: multiples of 4
template <int N>
__device__ inline unsigned kept_bits(const Case &c, const Place &at, int t, int s, int queries,
                                     int keys) {
    unsigned bits = 0;
    if (c.keys % 4 == 0) {
#pragma unroll
        for (int n = 0; n < N; n++) {
            unsigned row = (unsigned)at.h * c.queries + t + n * queries;
            bits |= kept_bits(c, at, row * (c.keys / 4) + (s + n * keys) / 4) << 4 * n;
        }
        return bits;
    }
#pragma unroll 1
    for (int n = 0; n < N; n++) {  // of two counters
        unsigned long long i = place_of(c, at, t + n * queries, s + n * keys);
        unsigned eight = kept_bits(c, at, i / 4) | kept_bits(c, at, i / 4 + 1) << 4;
        bits |= (eight >> i % 4 & 15) << 4 * n;
    }
    return bits;
}

// totals[row] = sum over d of y dy, which the softmax backwards subtracts. The threads of a block
// with one threadIdx.y share a row: 2^i of them, at most a warp.
KERNEL attention_totals(Heads y, Heads dy, W *totals, Case c, int rows) {
    int row = blockIdx.x * blockDim.y + threadIdx.y, head = row / c.queries, t = row % c.queries;
    bool there = row < rows;
    W total = 0;
    for (int d = V * threadIdx.x; there && d < D; d += V * blockDim.x) {
        Pack one = load(y.at(head / c.heads, head % c.heads, t) + d);
        Pack other = load(dy.at(head / c.heads, head % c.heads, t) + d);
#pragma unroll
        for (int v = 0; v < V; v++) total += (W)one.v[v] * (W)other.v[v];
    }
    for (int step = blockDim.x / 2; step; step /= 2) total += __shfl_xor_sync(ALL, total, step);
    if (there && threadIdx.x == 0) totals[row] = total;
}
