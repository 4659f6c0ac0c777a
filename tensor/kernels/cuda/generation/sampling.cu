// A token for each row of logits, and the state of the row moves on by one token: what ends each
// step of generation. The rules are those of tinygpt/generation/sampling.py.
//
//   weight = exp((x - largest) / temperature), in float64
//   kept: the k largest; of these the fewest that together have the share p of the weight
//   token: the first, by id, for which the weights of the kept tokens up to it exceed u times all
//
// Of equal logits the lower id comes first. u: number 2^-53 times a whole number of 53 bits, from
// Philox. A row whose largest logit is no finite number gets the token -1.
//
// logits: (rows, pitch), of which n count; pitch is a multiple of V   token, seen, count: (rows)
// draws: (rows, 3)   written: (ring, rows)
//
// A block has a row. Some logits of it are enough where few are kept: each thread knows the largest
// of its own logits, and the k-th largest of these is below or equal to k logits, so what is smaller
// is not kept. The others, some more than k, get a thread each, and sort themselves by counting.
//
// Otherwise each search is a bisection: a bit of the answer is set where a sum over the row allows
// it. Nothing is sorted, and no sum depends on an order of arrival: equal inputs give equal bits.

#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif

constexpr int BLOCK = 1024;
constexpr double ROUNDING = 1e-12;  // the share 0.4 + 0.3 of the weight reaches 0.7
constexpr double FAR = -1000;       // e^FAR is 0

// Larger floats have larger keys.
__device__ inline unsigned key_of(float x) {
    x = x == 0 ? 0 : x;  // also -0
    unsigned bits = *reinterpret_cast<unsigned *>(&x);
    return bits >> 31 ? ~bits : bits | 1u << 31;
}

// The values of all threads of the block, joined by `join`, for each of them.
template <class S, class F> __device__ inline S over_block(S value, F join) {
    __shared__ S of_warps[BLOCK / 32];
    for (int step = 16; step; step /= 2) value = join(value, __shfl_xor_sync(ALL, value, step));
    __syncthreads();  // the values of the call before have been read
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = value;
    __syncthreads();
    value = of_warps[threadIdx.x % 32];
    for (int step = 16; step; step /= 2) value = join(value, __shfl_xor_sync(ALL, value, step));
    return value;
}

template <class S> __device__ inline S block_sum(S value) {
    return over_block(value, [](S a, S b) { return a + b; });
}

// The sum over the first threads up to this one, where those from `size` on have 0; `total` is that
// of all.
__device__ inline double sum_up_to(double value, int size, double &total) {
    __shared__ double of_warps[BLOCK / 32], of_all;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (int step = 1; step < 32; step *= 2) {
        double other = __shfl_sync(ALL, value, max(lane - step, 0));
        if (lane >= step) value += other;
    }
    __syncthreads();  // the sums of the call before have been read
    if (lane == 31) of_warps[warp] = value;
    __syncthreads();
    double before = 0;
    if (threadIdx.x < size)
        for (int i = 0; i < warp; i++) before += of_warps[i];
    value += before;
    if (threadIdx.x == size - 1) of_all = value;
    __syncthreads();
    total = of_all;
    return value;
}

// The largest number of so many bits that `holds`; smaller ones do, larger ones do not.
template <class F> __device__ inline unsigned largest_that(int bits, F holds) {
    unsigned found = 0;
    for (int bit = bits - 1; bit >= 0; bit--)
        if (holds(found | 1u << bit)) found |= 1u << bit;
    return found;
}

struct Softmax {
    double largest, temperature;

    __device__ double weight(float x) const {
        return exp(max(x - largest, FAR * temperature) / temperature);
    }
};

// f(logit, id) for the logits of this thread. AHEAD reads are on their way.
template <int AHEAD, class F> __device__ inline void each(const float *x, int n, F f) {
    for (int from = threadIdx.x * V; from < n; from += AHEAD * BLOCK * V) {
        Pack packs[AHEAD];
#pragma unroll
        for (int a = 0; a < AHEAD; a++) packs[a] = load(x + min(from + a * BLOCK * V, (n - 1) / V * V));
#pragma unroll
        for (int a = 0; a < AHEAD; a++)
#pragma unroll
            for (int v = 0; v < V; v++) {
                int i = from + a * BLOCK * V + v;
                if (i < n) f(packs[a].v[v], i);
            }
    }
}

// -- by bisection

// The tokens down to one of them, in the order of their logits.
struct Kept {
    unsigned key;
    int id;

    __device__ bool has(unsigned k, int i) const { return k > key || (k == key && i <= id); }
};

// The fewest of the kept tokens, from the likeliest on, that reach the goal.
// measure(logit): what a token counts
template <class S, class F>
__device__ inline Kept fewest(const float *x, int n, int bits, Kept kept, S goal, F measure) {
    unsigned key = largest_that(32, [&](unsigned bound) {
        S sum = 0;
        each<1>(x, n, [&](float logit, int i) {
            unsigned k = key_of(logit);
            if (k >= bound && kept.has(k, i)) sum += measure(logit);
        });
        return block_sum(sum) >= goal;
    });
    unsigned id = largest_that(bits, [&](unsigned bound) {
        S sum = 0;
        each<1>(x, n, [&](float logit, int i) {
            unsigned k = key_of(logit);
            if ((k > key || (k == key && i < bound)) && kept.has(k, i)) sum += measure(logit);
        });
        return block_sum(sum) < goal;
    });
    return {key, (int)id};
}

__device__ inline int drawn_of_all(const float *x, int n, Softmax softmax, int top_k, double top_p,
                                   double u) {
    int bits = 0;  // of n
    while (n >> bits) bits++;
    Kept kept = {0, n};
    auto weight = [&](float logit) { return softmax.weight(logit); };
    auto weight_before = [&](unsigned bound) {
        double sum = 0;
        each<1>(x, n, [&](float logit, int i) {
            if (i < bound && kept.has(key_of(logit), i)) sum += weight(logit);
        });
        return block_sum(sum);
    };
    if (top_k < n) kept = fewest(x, n, bits, kept, top_k, [](float) { return 1; });
    if (top_p <= 1) {
        double goal = (top_p - ROUNDING) * weight_before(n);
        kept = fewest(x, n, bits, kept, goal, weight);
    }
    double target = u * weight_before(n);
    return largest_that(bits, [&](unsigned bound) { return weight_before(bound) <= target; });
}

// -- by counting

struct Listed {
    unsigned key;
    int id;
};

// The token, from a list of `size` logits in any order.
__device__ inline int drawn_of_some(const Listed *list, const float *x, int size, Softmax softmax,
                                    int top_k, double top_p, double u) {
    __shared__ double weights[BLOCK];
    __shared__ int ids[BLOCK];
    int t = threadIdx.x, before = 0, larger = 0;  // those with smaller ids; the likelier ones
    bool there = t < size;
    Listed own = list[there ? t : 0];
    if (there)
        for (int i = 0; i < size; i++) {
            Listed other = list[i];
            before += other.id < own.id;
            larger += other.key > own.key || (other.key == own.key && other.id < own.id);
        }
    double weight = there && larger < top_k ? softmax.weight(x[own.id]) : 0, total;
    if (top_p <= 1) {
        if (there) weights[larger] = weight;
        __syncthreads();
        double sum = sum_up_to(there ? weights[t] : 0, size, total);
        int kept = 1 + __syncthreads_count(there && sum < (top_p - ROUNDING) * total);
        if (larger >= kept) weight = 0;
    }
    if (there) weights[before] = weight, ids[before] = own.id;
    __syncthreads();
    double sum = sum_up_to(there ? weights[t] : 0, size, total);
    return ids[min(__syncthreads_count(there && sum <= u * total), size - 1)];
}

// -- the step

// Number `draw` of the stream of a seed, as tensor.random.Generator.uniform.
__device__ inline double uniform(unsigned long long seed, unsigned long long draw) {
    uint4 counter = {0, (unsigned)draw, 0xFFFFFFFFu, (unsigned)(draw >> 32)};
    uint4 words = philox(counter, {(unsigned)seed, (unsigned)(seed >> 32)});
    return (((unsigned long long)words.x << 21) ^ (words.y >> 11)) * 0x1p-53;
}

// The token of a row of n logits.
__device__ inline int chosen(const float *x, int n, double temperature, int top_k, double top_p,
                             double u) {
    __shared__ Listed list[BLOCK];
    __shared__ int size;
    if (threadIdx.x == 0) size = 0;
    unsigned own = 0;
    bool broken = false;
    each<7>(x, n, [&](float logit, int) {
        broken |= logit != logit;
        own = max(own, key_of(logit));
    });
    unsigned top = over_block(own, [](unsigned a, unsigned b) { return max(a, b); });
    if (__syncthreads_or(broken) || top >= key_of(INFINITY) || top <= key_of(-INFINITY)) return -1;
    unsigned bits = top >> 31 ? top & ~(1u << 31) : ~top;
    Softmax softmax = {*reinterpret_cast<float *>(&bits), temperature};
    if (top_k <= BLOCK / 2) {
        unsigned least = largest_that(32, [&](unsigned key) {
            return __syncthreads_count(own >= key) >= min(top_k, BLOCK);
        });
        each<7>(x, n, [&](float logit, int i) {
            unsigned key = key_of(logit);
            if (key < least) return;
            int place = atomicAdd(&size, 1);
            if (place < BLOCK) list[place] = {key, i};
        });
        __syncthreads();
        if (size <= BLOCK) return drawn_of_some(list, x, size, softmax, top_k, top_p, u);
    }
    return drawn_of_all(x, n, softmax, top_k, top_p, u);
}

// joined: the tokens that each row has read in this step   most: the tokens that fit beside a new
// one   draws: the seed, the number of the next draw, the step to the one after
KERNEL __launch_bounds__(1024)
sampling_draw(const float *logits, int *token, int *seen, int *count, long long *draws,
              int *written, int n, int pitch, int ring, int joined, int most, int top_k, double temperature,
              double top_p) {
    wait_for_the_one_before();
    int row = blockIdx.x;
    long long *draw = draws + 3 * row;
    int found = chosen(logits + (long long)row * pitch, n, temperature, top_k, top_p,
                       uniform(draw[0], draw[1]));
    if (threadIdx.x) return;
    written[count[row] % ring * gridDim.x + row] = found;
    count[row]++;
    draw[1] += draw[2];
    token[row] = max(found, 0);
    seen[row] = min(seen[row] + joined, most);
}
