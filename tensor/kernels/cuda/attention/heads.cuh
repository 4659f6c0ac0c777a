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
    unsigned threshold, step, module, sample, seed_low, seed_high;  // of dropout
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

__device__ inline bool seen(const Case &c, const Mask &mask, const Place &at, int t, int s) {
    if (t >= c.queries || s >= keys_before(c, t)) return false;
    if (!MASKED) return true;
    return mask.start[at.b * mask.batch + at.h * mask.head + t * mask.query + s * mask.key];
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

__device__ inline uint4 words_of(const Case &c, const Place &at, unsigned long long i) {
    uint4 counter = {(unsigned)(i / 4), c.step, c.module, c.sample + at.b};
    return philox(counter, {c.seed_low, c.seed_high});
}

__device__ inline W factor_of(const Case &c, unsigned word) {
    return word >= c.threshold ? (W)c.factor : (W)0;
}

// What dropout multiplies the weight of query t and key s by: 0 or 1 / (1 - p).
__device__ inline W kept(const Case &c, const Place &at, int t, int s) {
    if (!DROPS) return 1;
    unsigned long long i = place_of(c, at, t, s);
    return factor_of(c, word(words_of(c, at, i), i % 4));
}

// The same for keys s and s + 1, mostly of one counter.
struct Two {
    W first, second;
};

__device__ inline Two kept_two(const Case &c, const Place &at, int t, int s) {
    unsigned long long i = place_of(c, at, t, s);
    uint4 words = words_of(c, at, i);
    W first = factor_of(c, word(words, i % 4));
    if (i % 4 == 3) words = words_of(c, at, i + 1);
    return {first, factor_of(c, word(words, (i + 1) % 4))};
}

// totals[row] = sum over d of y dy, which the softmax backwards subtracts: a warp for each row.
KERNEL attention_totals(Heads y, Heads dy, W *totals, Case c, int rows) {
    int row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return;
    int head = row / c.queries, t = row % c.queries;
    const T *one = y.at(head / c.heads, head % c.heads, t);
    const T *other = dy.at(head / c.heads, head % c.heads, t);
    W total = 0;
    for (int d = threadIdx.x; d < D; d += 32) total += (W)one[d] * (W)other[d];
    total = warp_sum(total);
    if (threadIdx.x == 0) totals[row] = total;
}
