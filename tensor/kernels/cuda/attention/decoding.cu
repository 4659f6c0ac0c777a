// Attention for decoding: few queries, many keys.   Dao et al. 2023, "Flash-Decoding for
// long-context inference"; the formulas: plain.cu
//
// q, y: (B, H, queries, D)   k, v: (B, H, keys, D)   log_sums: (B, H, queries), W
// parts: (B, H, queries, count, D + 2), W
//
// New here: the keys of a head are split over `count` warps, since one query makes too little work
// for a GPU. Each warp goes along its span of the keys by the online softmax, and writes a part:
//
//   largest = max of score[s],   sum = sum over s of exp(score[s] - largest)
//   output = sum over s of exp(score[s] - largest) v[s]
//
// Then a second, small kernel joins the parts of each query, in order, so equal inputs give equal
// bits:
//
//   y = sum over parts of exp(largest - top) output / sum over parts of exp(largest - top) sum
//
// where `top` is the largest of all parts. This is the online softmax once more: sums to different
// bases are added after they shrink to the same base.
//
// LANES lanes of a warp share a row of k or v: each reads 16 bytes where rows start at multiples of
// 16 bytes, so V numbers. The other lanes of the warp have other keys. Each lane reads the rows of
// AHEAD keys before it uses the first: bytes on their way hide the time of a read. QUERIES queries
// of a warp use each row that is read.
//
// Multiply-adds of a pair (t, s): 2 D. Bytes read for each key: 2 D elements, once for QUERIES
// queries, and a key that no query sees is not read. The bytes decide: for bf16, B 64, H 12, keys
// 8192, D 64, they are 1.6 GB, which an H200 reads in 0.34 ms at 4.8 TB/s. Parts add 4 (D + 2)
// bytes, written and read, for each span of a query.
//
// The launcher defines QUERIES, 1 or 4.

constexpr int AHEAD = 4;           // keys
constexpr int PACKS = D / V;       // of a row; V divides D
constexpr int LANES = PACKS > 16 ? 32 : PACKS > 8 ? 16 : PACKS > 4 ? 8 : PACKS > 2 ? 4 : 2;
constexpr int OWN = (PACKS + LANES - 1) / LANES;  // packs of a row that a lane has
constexpr int GROUPS = 32 / LANES;                // keys at once
constexpr int COLUMNS = 8;                        // numbers of y that a warp joins

// What a lane has of a row.
struct Share {
    Pack packs[OWN];

    __device__ W operator[](int i) const { return (W)packs[i / V].v[i % V]; }
};

// Zeros where the row is not wanted, or ends.
__device__ inline Share read(const T *row, bool wanted) {
    Share x;
#pragma unroll
    for (int n = 0; n < OWN; n++) {
        int pack = n * LANES + threadIdx.x % LANES;
        if (wanted && pack < PACKS) x.packs[n] = load(row + pack * V);
        else
            for (int i = 0; i < V; i++) x.packs[n].v[i] = (T)(W)0;
    }
    return x;
}

// Over the lanes of a row.
__device__ inline W row_sum(W value) {
#pragma unroll
    for (int step = LANES / 2; step; step /= 2) value += __shfl_xor_sync(ALL, value, step);
    return value;
}

// Over the groups of a warp.
__device__ inline W groups_sum(W value) {
#pragma unroll
    for (int step = LANES; step < 32; step *= 2) value += __shfl_xor_sync(ALL, value, step);
    return value;
}

// exp(score - top), also where nothing was seen and both are -infinity.
__device__ inline W weight_of(W score, W top) { return exp(score - (top == -INFINITY ? 0 : top)); }

// The online softmax of a query, as far as this lane has seen.
struct Softmax {
    W output[OWN * V] = {}, largest = -INFINITY, sum = 0;

    __device__ void shrink_to(W top) {
        W shrink = weight_of(largest, top);
        largest = top;
        sum *= shrink;
#pragma unroll
        for (int i = 0; i < OWN * V; i++) output[i] *= shrink;
    }
};

// One bit for each query from t on: whether it sees key s.
__device__ inline unsigned who_sees(const Case &c, const Mask &mask, const Place &at, int t, int s) {
    unsigned bits = 0;
#pragma unroll
    for (int i = 0; i < QUERIES; i++) bits |= (unsigned)seen(c, mask, at, t + i, s) << i;
    return bits;
}

// count: parts of the keys   span: keys of a part   warps: of all parts
KERNEL attention_decoding_parts(Heads q, Heads k, Heads v, Mask mask, W *parts, Case c, int count,
                                int span, int warps) {
    int warp = blockIdx.x * blockDim.y + threadIdx.y, tiles = ceil_div(c.queries, QUERIES);
    if (warp >= warps) return;
    // warps side by side read the same keys
    int part = warp / tiles % count, head = warp / tiles / count, t = warp % tiles * QUERIES;
    Place at = {head / c.heads, head % c.heads, 0, (long long)head * c.queries};
    int group = threadIdx.x / LANES, end = min(c.keys, (part + 1) * span);
    Share query[QUERIES];
    Softmax sums[QUERIES];
#pragma unroll
    for (int i = 0; i < QUERIES; i++)
        query[i] = read(q.at(at.b, at.h, t + i), t + i < c.queries);
    for (int first = part * span + group; first - group < end; first += AHEAD * GROUPS) {
        unsigned lookers[AHEAD];
        Share keys[AHEAD], values[AHEAD];
#pragma unroll
        for (int n = 0; n < AHEAD; n++) {
            int s = first + n * GROUPS;
            lookers[n] = s < end ? who_sees(c, mask, at, t, s) : 0;
            keys[n] = read(k.at(at.b, at.h, s), lookers[n]);
            values[n] = read(v.at(at.b, at.h, s), lookers[n]);
        }
#pragma unroll
        for (int i = 0; i < QUERIES; i++) {
            W scores[AHEAD], top = sums[i].largest;
#pragma unroll
            for (int n = 0; n < AHEAD; n++) {
                W product = 0;
#pragma unroll
                for (int d = 0; d < OWN * V; d++) product += query[i][d] * keys[n][d];
                product = row_sum(product);
                scores[n] = lookers[n] >> i & 1 ? (W)c.scale * product : -INFINITY;
                top = scores[n] > top ? scores[n] : top;
            }
            sums[i].shrink_to(top);
#pragma unroll
            for (int n = 0; n < AHEAD; n++) {
                if (!(lookers[n] >> i & 1)) continue;  // 0 times NaN would be NaN
                W weight = weight_of(scores[n], top);
                sums[i].sum += weight;
                weight *= kept(c, at, t + i, first + n * GROUPS);
#pragma unroll
                for (int d = 0; d < OWN * V; d++) sums[i].output[d] += weight * values[n][d];
            }
        }
    }
#pragma unroll
    for (int i = 0; i < QUERIES; i++) {
        W top = warp_max(sums[i].largest);
        sums[i].shrink_to(top);
        W sum = groups_sum(sums[i].sum);
        W *to = parts + ((at.row + t + i) * count + part) * (D + 2);
        bool writes = group == 0 && t + i < c.queries;
#pragma unroll
        for (int n = 0; n < OWN * V; n++) {
            W output = groups_sum(sums[i].output[n]);
            int d = (n / V * LANES + threadIdx.x % LANES) * V + n % V;
            if (writes && d < D) to[d] = output;
        }
        if (writes && threadIdx.x == 0) to[D] = top, to[D + 1] = sum;
    }
}

// A warp joins COLUMNS numbers of a query. Lanes COLUMNS apart have the same number, and each adds
// some of the parts.   unit: log_sums are multiplied by it   rows: of y
KERNEL attention_decoding_join(const W *parts, Heads y, W *log_sums, Case c, int count, int rows,
                               W unit) {
    constexpr int CHUNKS = (D + COLUMNS - 1) / COLUMNS, STEP = 32 / COLUMNS;
    int warp = blockIdx.x * blockDim.y + threadIdx.y, row = warp / CHUNKS;
    if (row >= rows) return;
    const W *of_row = parts + (long long)row * count * (D + 2);
    W top = -INFINITY, sum = 0, output = 0;
    for (int part = threadIdx.x; part < count; part += 32)
        top = max(top, of_row[part * (D + 2) + D]);
    top = warp_max(top);
    for (int part = threadIdx.x; part < count; part += 32) {
        const W *one = of_row + part * (D + 2);
        sum += weight_of(one[D], top) * one[D + 1];
    }
    sum = warp_sum(sum);
    int d = warp % CHUNKS * COLUMNS + threadIdx.x % COLUMNS;
#pragma unroll 8
    for (int part = threadIdx.x / COLUMNS; part < count; part += STEP) {
        const W *one = of_row + part * (D + 2);
        if (d < D) output += weight_of(one[D], top) * one[d];
    }
    for (int step = COLUMNS; step < 32; step *= 2) output += __shfl_xor_sync(ALL, output, step);
    int head = row / c.queries, t = row % c.queries;
    if (threadIdx.x < COLUMNS && d < D)
        y.at(head / c.heads, head % c.heads, t)[d] = (T)(sum == 0 ? 0 : output / sum);
    // a query that sees nothing has weights of 0 in backward
    if (warp % CHUNKS == 0 && threadIdx.x == 0)
        log_sums[row] = sum == 0 ? (W)INFINITY : unit * (top + log(sum));
}
