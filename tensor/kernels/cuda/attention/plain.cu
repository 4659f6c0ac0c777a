// Attention, the plainest version: one thread for each row, and the online softmax.
// Milakov and Gimelshein 2018; Dao et al. 2022
//
//   score[t, s] = scale q[t] . k[s]
//   weight[t, s] = exp(score[t, s] - log_sum[t])
//   log_sum[t] = log(sum over s of exp(score[t, s]))
//   y[t] = sum over s of weight[t, s] v[s]
//
// q, y: (B, H, queries, D)   k, v: (B, H, keys, D)   log_sums, totals: (B, H, queries), W
//
// Nothing of size queries x keys is kept. A thread goes along the keys once, with the largest score
// so far, m, and sums of exp(score - m). A larger score makes m larger; then the sums shrink by
// exp(m before - m). So no exponential overflows, and no score is needed twice. Backward makes each
// weight again from the scores and log_sum:
//
//   dweight[t, s] = dy[t] . v[s],   dscore = weight (dweight - total),   total[t] = y[t] . dy[t]
//   dq[t] = scale sum over s of dscore[t, s] k[s]
//   dk[s] = scale sum over t of dscore[t, s] q[t],   dv[s] = sum over t of weight[t, s] dy[t]
//
// A thread has a query for dq, a key for dk and dv: each adds alone and in order, so equal inputs
// give equal bits. With dropout, a weight is multiplied by what is kept of it, and so is dweight.
//
// Counted for B 32, H 12, T 1024, D 64, causal, bf16, and timed on an H200. P = B H T (T + 1) / 2 =
// 202 million pairs (t, s) are seen. A warp reads each row of k and v once for its n = 32 queries,
// and for dk and dv each row of q and dy once for its 32 keys.
//
//                                forward                           backward: dq; dk and dv
//   multiply-adds                2 D P = 25.8 G                    3 D P; 4 D P: 90.3 G
//   bytes from memory, least     q, k, v, y: 201 MB                13 such arrays: 654 MB
//   bytes of k and v by warps    2 B H D T (T + n) / n: 1.66 GB    the same for each
//   registers, bytes spilled     167, 0                            255, 112; 255, 344
//   blocks a multiprocessor      6 of 64 threads                   4
//   time, rate                   11.9 ms, 4.3 TFLOP/s              23.9 ms, 5.4 TFLOP/s
//
// A rate counts the operations that are needed, 4 D P forward and 10 D P backward. The kernels make
// the scores and dweights twice in backward, which is 14 D P. All threads of a warp read the same
// number of k at once. So each multiply-add of a warp needs one read from the L1 cache, and a
// multiprocessor does four multiply-adds in the time of a read. tiles.cu reads less often.

// A query that sees nothing gives 0, and weights 0 in backward.
__device__ inline W log_sum_of(W largest, W sum) {
    return sum == 0 ? (W)INFINITY : largest + log(sum);
}

__device__ inline void read(W (&row)[D], const T *from) {
    for (int d = 0; d < D; d++) row[d] = (W)from[d];
}

__device__ inline void write(const W (&row)[D], W factor, T *to) {
    for (int d = 0; d < D; d++) to[d] = (T)(row[d] * factor);
}

__device__ inline W dot(const W (&row)[D], const T *other) {
    W sum = 0;
    for (int d = 0; d < D; d++) sum += row[d] * (W)other[d];
    return sum;
}

// sum += factor row
__device__ inline void add(W (&sum)[D], W factor, const T *row) {
    for (int d = 0; d < D; d++) sum[d] += factor * (W)row[d];
}

KERNEL attention_plain_forward(Heads q, Heads k, Heads v, Mask mask, Heads y, W *log_sums, Case c) {
    Place at = place(c, ceil_div(c.queries, blockDim.x));
    int t = at.tile * blockDim.x + threadIdx.x;
    if (t >= c.queries) return;
    W query[D], output[D] = {}, largest = -INFINITY, sum = 0;
    read(query, q.at(at.b, at.h, t));
    for (int s = 0; s < keys_before(c, t); s++) {
        if (!seen(c, mask, at, t, s)) continue;
        W score = (W)c.scale * dot(query, k.at(at.b, at.h, s));
        if (score == -INFINITY) continue;  // a weight of 0
        if (score > largest) {
            W shrink = exp(largest - score);
            largest = score;
            sum *= shrink;
            for (int d = 0; d < D; d++) output[d] *= shrink;
        }
        W weight = exp(score - largest);
        sum += weight;
        add(output, weight * kept(c, at, t, s), v.at(at.b, at.h, s));
    }
    write(output, sum == 0 ? 0 : 1 / sum, y.at(at.b, at.h, t));
    log_sums[at.row + t] = log_sum_of(largest, sum);
}

KERNEL attention_plain_dq(Heads q, Heads k, Heads v, Mask mask, Heads dy, const W *log_sums,
                    const W *totals, Heads dq, Case c) {
    Place at = place(c, ceil_div(c.queries, blockDim.x));
    int t = at.tile * blockDim.x + threadIdx.x;
    if (t >= c.queries) return;
    W query[D], doutput[D], dquery[D] = {};
    read(query, q.at(at.b, at.h, t));
    read(doutput, dy.at(at.b, at.h, t));
    for (int s = 0; s < keys_before(c, t); s++) {
        if (!seen(c, mask, at, t, s)) continue;
        W score = (W)c.scale * dot(query, k.at(at.b, at.h, s));
        W weight = exp(score - log_sums[at.row + t]);
        W dweight = kept(c, at, t, s) * dot(doutput, v.at(at.b, at.h, s));
        add(dquery, weight * (dweight - totals[at.row + t]), k.at(at.b, at.h, s));
    }
    write(dquery, (W)c.scale, dq.at(at.b, at.h, t));
}

KERNEL attention_plain_dkv(Heads q, Heads k, Heads v, Mask mask, Heads dy, const W *log_sums,
                     const W *totals, Heads dk, Heads dv, Case c) {
    Place at = place(c, ceil_div(c.keys, blockDim.x));
    int s = at.tile * blockDim.x + threadIdx.x;
    if (s >= c.keys) return;
    W key[D], value[D], dkey[D] = {}, dvalue[D] = {};
    read(key, k.at(at.b, at.h, s));
    read(value, v.at(at.b, at.h, s));
    for (int t = 0; t < c.queries; t++) {
        if (!seen(c, mask, at, t, s)) continue;
        const T *query = q.at(at.b, at.h, t), *doutput = dy.at(at.b, at.h, t);
        W weight = exp((W)c.scale * dot(key, query) - log_sums[at.row + t]);
        W keep = kept(c, at, t, s), dweight = keep * dot(value, doutput);
        add(dvalue, weight * keep, doutput);
        add(dkey, weight * (dweight - totals[at.row + t]), query);
    }
    write(dkey, (W)c.scale, dk.at(at.b, at.h, s));
    write(dvalue, 1, dv.at(at.b, at.h, s));
}
