// The end of a training step: the norm of all gradients, what follows from it, and AdamW.
//      Kingma & Ba 2015, algorithm 1; Loshchilov & Hutter 2019, algorithm 2
//
//   norm = sqrt(sum of g^2) / scale           scale: that of the loss, 1 without one
//   factor = min(1, limit / norm) / scale     a step whose norm is not finite is skipped
//   m = b1 m + (1 - b1) factor g,   v = b2 v + (1 - b2) (factor g)^2
//   w = decay w - rate / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + eps)
//
// g, narrow: (n), T   w, m, v: (n), W   partial: (blocks), double   decision: (4), double
// scale: (2), double   skipped: (1), double
//
// squared_norm   each block adds its elements in double, and writes one partial sum
// control        one block adds the partial sums, and decides what the host would have to wait for
// adamw          one pass over a stretch of the flat storage; the exact weights w are masters if T
//                has 16 bits, and `narrow` gets them rounded
//
// Fused: unscaling, clipping, the update, and the rounding. No atomics, and a grid that follows from
// n alone: the same bits every time. Bytes moved an element: 2 + 28 in 16 bits, 4 + 28 in float.

constexpr int THREADS = 256;
enum { NORM, FACTOR, SKIP, SKIPPED };  // in `decision`; SKIPPED: steps, so far
enum { SCALE, GOOD };                  // in `scale`: its value, and the good steps since it changed
enum { RATE, DECAY, STEP };            // in `later`
constexpr double LEAST = 0x1p-126, MOST = 0x1p127;  // of the scale, as in scaling.py

// V neighbours in the type of arithmetic
struct alignas(V == 1 ? sizeof(W) : 16) Wide {
    W v[V];
};

// The sum over a block, in thread 0: lanes, then warps, always in the same order.
__device__ double block_sum(double value) {
    __shared__ double warps[THREADS / 32];
    for (int step = 16; step; step /= 2) value += __shfl_down_sync(ALL, value, step);
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
    __syncthreads();
    double total = 0;
    if (threadIdx.x == 0)
        for (int i = 0; i < THREADS / 32; i++) total += warps[i];
    return total;
}

KERNEL squared_norm(const T *g, double *partial, long long n) {
    long long step = (long long)gridDim.x * THREADS * V;
    double sum = 0;
    for (long long i = ((long long)blockIdx.x * THREADS + threadIdx.x) * V; i < n; i += step) {
        Pack x = load(g + i);
        for (int k = 0; k < V; k++) sum += (double)(W)x.v[k] * (double)(W)x.v[k];
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// scale may be null. patience: good steps after which the scale doubles.
KERNEL control(const double *partial, double *decision, double *skipped, double *scale,
               double limit, int count, int patience) {
    double sum = 0;
    for (int i = threadIdx.x; i < count; i += THREADS) sum += partial[i];
    sum = block_sum(sum);
    if (threadIdx.x) return;
    double by = scale ? scale[SCALE] : 1;
    double norm = sqrt(sum) / by;
    bool finite = isfinite(norm);
    skipped[0] += !finite;
    decision[NORM] = norm;
    decision[FACTOR] = (norm > limit ? limit / norm : 1) / by;
    decision[SKIP] = !finite;
    decision[SKIPPED] = skipped[0];
    if (!scale) return;
    double good = finite ? scale[GOOD] + 1 : 0;
    bool grows = good >= patience;
    double next = finite ? (grows ? by * 2 : by) : by / 2;
    scale[SCALE] = fmin(fmax(LEAST, next), MOST);
    scale[GOOD] = grows ? 0 : good;
}

// t: the step from 1, skipped ones included. `decision` null: nothing is skipped, the factor is 1, and
// the host has made rate / (1 - b1^t) of the rate, and 1 / sqrt(1 - b2^t) of `correction`.
// later: where rate, decay and t lie instead, for the replays of a CUDA graph, or null
KERNEL adamw(const T *g, T *narrow, W *w, W *m, W *v, const double *decision, const double *later,
             double rate, double correction, double b1, double b2, double eps, double decay, int t,
             long long n) {
    __shared__ double corrected[2];
    if (decision && decision[SKIP]) return;
    if (later) {
        rate = later[RATE];
        decay = later[DECAY];
        t = later[STEP];
    }
    if (decision && threadIdx.x == 0) {
        double taken = t - decision[SKIPPED];
        corrected[0] = rate / (1 - pow(b1, taken));
        corrected[1] = 1 / sqrt(1 - pow(b2, taken));
    }
    __syncthreads();
    W factor = decision ? decision[FACTOR] : 1;
    W size = decision ? corrected[0] : rate, root = decision ? corrected[1] : correction;
    W keep1 = b1, take1 = 1 - b1, keep2 = b2, take2 = 1 - b2, epsilon = eps, kept = decay;
    long long step = (long long)gridDim.x * THREADS * V;
    for (long long i = ((long long)blockIdx.x * THREADS + threadIdx.x) * V; i < n; i += step) {
        Pack gradient = load(g + i), rounded;
        Wide &first = *reinterpret_cast<Wide *>(m + i), &second = *reinterpret_cast<Wide *>(v + i);
        Wide &weight = *reinterpret_cast<Wide *>(w + i);
        Wide x = weight, mean = first, square = second;
        for (int k = 0; k < V; k++) {
            W d = (W)gradient.v[k] * factor;
            mean.v[k] = keep1 * mean.v[k] + take1 * d;
            square.v[k] = keep2 * square.v[k] + take2 * (d * d);
            W change = mean.v[k] / (sqrt(square.v[k]) * root + epsilon) * size;
            x.v[k] = kept * x.v[k] - change;
            rounded.v[k] = (T)x.v[k];
        }
        first = mean;
        second = square;
        weight = x;
        if (narrow) store(narrow + i, rounded);
    }
}
