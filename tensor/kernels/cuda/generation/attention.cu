// Attention of one new token of each row over the cache, where each row has a length of its own.
// Online softmax over parts of the keys: ../attention/decoding.cu.
//
//   q, k, v = the new token's, with their biases; k and v join the cache at place seen[row]
//   y = softmax(q k^T / sqrt(D)) v over the seen[row] + 1 keys
//
// qkv: (QKV, rows, 3, heads, D), W, parts of a sum   keys, values: (rows, heads, capacity, D), T
// attended: (rows, heads, PARTS, D + 2), W: output, largest score, sum of weights   y: (rows,
// heads, D), T, written in place of `attended` where PARTS is 1 and y is given
//
// A block has a part of the keys of one head. LANES of its threads share a key, 16 bytes each.
//
// The launcher defines D, QKV and PARTS.

#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif

constexpr int PACKS = D / V;  // of a row
constexpr int LANES = PACKS > 16 ? 32 : PACKS > 8 ? 16 : PACKS > 4 ? 8 : PACKS > 2 ? 4 : 2;
constexpr int WARPS = 4, THREADS = 32 * WARPS;
constexpr int GROUPS = THREADS / LANES;  // keys at once
constexpr int AHEAD = 2;                 // keys of a group, on their way

// Over the lanes that differ in the bits from FROM on and below TO.
template <int FROM, int TO> __device__ inline W lanes_sum(W value) {
#pragma unroll
    for (int step = FROM; step < TO; step *= 2) value += __shfl_xor_sync(ALL, value, step);
    return value;
}

__device__ inline W weight_of(W score, W top) { return exp(score - (top == -INFINITY ? 0 : top)); }

KERNEL __launch_bounds__(128, 7)
attend(const W *qkv, const T *bias, const int *seen, T *keys, T *values, W *attended,
                  T *y, int capacity, W scale) {
    __shared__ W fresh[3][D];  // q, k, v of the new token
    __shared__ W outputs[WARPS][D], tops[WARPS], sums[WARPS];
    int part = blockIdx.x, head = blockIdx.y, row = blockIdx.z;
    int heads = gridDim.y, rows = gridDim.z, C = heads * D, last = seen[row];
    int span = (last + PARTS) / PARTS, first = part * span, end = min(last + 1, first + span);
    long long start = ((long long)row * heads + head) * capacity * D;
    int lane = threadIdx.x % LANES, group = threadIdx.x / LANES, old = min(end, last);
    bool reads = lane < PACKS;
    const T *key = keys + start + lane * V, *value = values + start + lane * V;
    Pack k[AHEAD] = {}, v[AHEAD] = {};
    auto ask = [&](int s) {
#pragma unroll
        for (int n = 0; n < AHEAD; n++) {
            int at = s + n * GROUPS;
            if (!reads || at >= old) continue;
            k[n] = load_early(key + (long long)at * D);
            v[n] = load_early(value + (long long)at * D);
        }
    };
    constexpr int ROUND = AHEAD * GROUPS;
    let_the_next_one_start();
    ask(first + group);
    wait_for_the_one_before();
    for (int i = threadIdx.x; i < 3 * D; i += THREADS) {
        int which = i / D, d = i % D, at = which * C + head * D + d;
        W sum = bias ? (W)bias[at] : (W)0;
#pragma unroll
        for (int n = 0; n < QKV; n++) sum += qkv[(long long)(n * rows + row) * 3 * C + at];
        if (which) sum = (W)(T)sum;  // as the cache holds it
        fresh[which][d] = sum;
        if (which && last >= first && last < end)
            (which == 1 ? keys : values)[start + (long long)last * D + d] = (T)sum;
    }
    __syncthreads();
    W q[V] = {}, output[V] = {}, top = -INFINITY, sum = 0;
    if (reads)
        for (int i = 0; i < V; i++) q[i] = fresh[0][lane * V + i] * scale;
    for (int s = first + group; s - group < end; s += ROUND) {
        W scores[AHEAD], before = top;
#pragma unroll
        for (int n = 0; n < AHEAD; n++) {
            int at = s + n * GROUPS;
            if (reads && at == last)
                for (int i = 0; i < V; i++) {
                    k[n].v[i] = (T)fresh[1][lane * V + i];
                    v[n].v[i] = (T)fresh[2][lane * V + i];
                }
            W product = 0;
#pragma unroll
            for (int i = 0; i < V; i++) product += q[i] * (W)k[n].v[i];
            product = lanes_sum<1, LANES>(product);
            scores[n] = at < end ? product : -INFINITY;
            top = max(top, scores[n]);
        }
        W shrink = weight_of(before, top);
        sum *= shrink;
#pragma unroll
        for (int i = 0; i < V; i++) output[i] *= shrink;
#pragma unroll
        for (int n = 0; n < AHEAD; n++) {
            W weight = weight_of(scores[n], top);
            sum += weight;
#pragma unroll
            for (int i = 0; i < V; i++) output[i] += weight * (W)v[n].v[i];
        }
        ask(s + ROUND);
    }
    // the groups of a warp, then the warps
    W most = warp_max(top), shrink = weight_of(top, most);
    int warp = threadIdx.x / 32;
    sum = lanes_sum<LANES, 32>(sum * shrink);
#pragma unroll
    for (int i = 0; i < V; i++) {
        W all = lanes_sum<LANES, 32>(output[i] * shrink);
        if (threadIdx.x % 32 < PACKS) outputs[warp][lane * V + i] = all;
    }
    if (threadIdx.x % 32 == 0) tops[warp] = most, sums[warp] = sum;
    __syncthreads();
    long long to = ((long long)row * heads + head) * PARTS + part;
    for (int d = threadIdx.x; d < D; d += THREADS) {
        W largest = -INFINITY, all = 0, joined = 0;
        for (int w = 0; w < WARPS; w++) largest = max(largest, tops[w]);
        for (int w = 0; w < WARPS; w++) {
            W weight = weight_of(tops[w], largest);
            all += weight * sums[w];
            joined += weight * outputs[w][d];
        }
        if (y) y[to * D + d] = (T)(joined / all);
        else attended[to * (D + 2) + d] = joined;
        if (!y && d == 0) attended[to * (D + 2) + D] = largest, attended[to * (D + 2) + D + 1] = all;
    }
}

// x = scale tokens[id] + positions[seen], (rows, C), for the token of each row: a block a row
KERNEL embed(const int *token, const int *seen, const T *tokens, const T *positions, T *x,
                     int C, W scale) {
    wait_for_the_one_before();
    int row = blockIdx.x;
    const T *a = tokens + (long long)token[row] * C, *b = positions + (long long)seen[row] * C;
    for (int c = threadIdx.x; c < C; c += blockDim.x)
        x[(long long)row * C + c] = (T)(scale * (W)a[c] + (W)b[c]);
}

// The keys and values of the first tokens of texts join the cache: a block a token
// qkv: (rows, tokens, 3, heads, D)
KERNEL keep(const T *qkv, T *keys, T *values, int heads, int capacity) {
    int t = blockIdx.x, row = blockIdx.y, C = heads * D;
    const T *own = qkv + ((long long)row * gridDim.x + t) * 3 * C + C;
    for (int i = threadIdx.x * V; i < 2 * C; i += blockDim.x * V) {
        int c = i % C, head = c / D;
        long long to = (((long long)row * heads + head) * capacity + t) * D + c % D;
        store((i < C ? keys : values) + to, load(own + i));
    }
}
