// A whole decoder on one new token of each of a few texts: what generation does for every token.
//
//   x = scale tokens[id] + positions[seen]
//   in each layer:  x += attention(norm(x)) W + b,   x += activation(norm(x) W1 + b1) W2 + b2
//   logits = norm(x) head
//
// x: (ROWS, C)   weights: (inputs, outputs), T   keys, values: (ROWS, heads, capacity, D), T
// token, seen: (ROWS), the id to read, and the tokens before it   logits: (ROWS, pitch), float
//
// Each weight is read once, 2 bytes a parameter in 16 bits, and nothing else counts: 249 MB for
// GPT-2, which an H200 reads in 52 us at 4.8 TB/s. A layer of it is 14 MB, 3 us: so short that
// latency decides. Five kernels make a layer. Each asks for its weights first, and for what the
// kernel before has written last.
//
// Products. A weight of C x C is too small for the GPU's 132 multiprocessors: the inputs are split
// too, over gridDim.y blocks. A block has LANES V outputs and a share of the inputs, and writes a
// part of each sum. The kernel that needs the sums adds the parts, with the bias, in their order:
// so equal inputs give equal bits. It does all that lies between two products, anew in each block:
//
//   next_qkv, expand   residual sum and norm
//   attend             bias and cache, then each head's keys, split over PARTS blocks
//   project            joins these parts
//   contract           bias and activation
//
// The launcher defines:
//
//   ROWS   1 or 2
//   C      the width
//   D      the numbers of a head, a multiple of V
//   QKV, PROJECTED, EXPANDED, CONTRACTED   the parts of a sum of each product
//   PARTS  the parts of a head's keys

#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif

constexpr int WARPS = 8, THREADS = 32 * WARPS;
constexpr int LANES = 4;                 // of a weight's row, 16 bytes each
constexpr int GROUPS = THREADS / LANES;  // rows at once
constexpr int AHEAD = 8;                 // rows on their way to each thread
constexpr int BLOCKS = 3;                // at once: those that wait have their weights already

extern __shared__ W shared[];

// -- what the kernels read

// The sum of N parts of an element, (N, size).
template <int N> __device__ inline W joined(const W *parts, int size) {
    W sum = 0;
#pragma unroll
    for (int n = 0; n < N; n++) sum += parts[n * size];
    return sum;
}

__device__ inline W or_zero(const T *bias, int i) { return bias ? (W)bias[i] : (W)0; }

// Sums over the warps that share a row of x: WARPS / ROWS of them.
__device__ inline W row_sum(W value, W *of_warps) {
    constexpr int SHARING = WARPS / ROWS;
    value = warp_sum(value);
    int warp = threadIdx.x / 32, first = warp / SHARING * SHARING;
    if (threadIdx.x % 32 == 0) of_warps[warp] = value;
    __syncthreads();
    value = 0;
    for (int i = 0; i < SHARING; i++) value += of_warps[first + i];
    return value;
}

// A thread has the elements c = start + STEP i of a row.
constexpr int STEP = THREADS / ROWS, OWN = (C + STEP - 1) / STEP;

// A row of parameters, asked for early.
struct Early {
    T own[OWN];

    __device__ explicit Early(const T *row) {
#pragma unroll
        for (int i = 0; i < OWN; i++) {
            int c = threadIdx.x % STEP + STEP * i;
            own[i] = row && c < C ? load_one_early(row + c) : (T)(W)0;
        }
    }
};

// The residual stream, and how it goes on: x + bias + the parts of a sum, written to `next`; or
// the embeddings where there is no x yet. Then its norm.
struct Stream {
    const int *token, *seen;
    const T *tokens, *positions;
    W scale;
    const W *x, *parts;
    const T *bias, *gain, *shift;
    W *next, eps;

    // norm(x) of all rows, the columns from `first` on and before `end`, into shared memory (ROWS,
    // C), from N parts. It waits for the kernel before.
    template <int N> __device__ void normed(int first, int end) const {
        __shared__ W of_warps[2][WARPS];
        Early biases(bias), gains(gain), shifts(shift);
        wait_for_the_one_before();
        int row = threadIdx.x / STEP, start = threadIdx.x % STEP;
        const T *a = nullptr, *b = nullptr;
        if (tokens) {
            a = tokens + (long long)token[row] * C;
            b = positions + (long long)seen[row] * C;
        }
        W own[OWN], sum = 0, squares = 0;
#pragma unroll
        for (int i = 0; i < OWN; i++) {
            int c = start + STEP * i, at = row * C + c;
            if (c >= C) own[i] = 0;
            else if (tokens) own[i] = scale * (W)a[c] + (W)b[c];
            else own[i] = x[at] + ((W)biases.own[i] + joined<N>(parts + at, ROWS * C));
            sum += own[i];
        }
        W mean = row_sum(sum, of_warps[0]) / C;
#pragma unroll
        for (int i = 0; i < OWN; i++) {
            W d = start + STEP * i < C ? own[i] - mean : 0;
            squares += d * d;
        }
        W inverse = 1 / sqrt(row_sum(squares, of_warps[1]) / C + eps);
        bool writes = next && blockIdx.x == 0 && blockIdx.y == 0;
#pragma unroll
        for (int i = 0; i < OWN; i++) {
            int c = start + STEP * i;
            if (c >= first && c < end)
                shared[row * C + c] =
                    (own[i] - mean) * inverse * (W)gains.own[i] + (W)shifts.own[i];
            if (writes && c < C) next[row * C + c] = own[i];
        }
        __syncthreads();
    }
};

// 1 / (1 + e^(-2u)) of GELU:  gelu.cu
__device__ inline W activated(W x, int relu) {
    if (relu) return x < 0 ? (W)0 : x;
    W twice = (W)1.5957691216057308 * (x + (W)0.044715 * x * x * x);
    return x / (1 + exp(-twice));
}

// -- products

// y = x W, where a block has a share of the inputs, [first, end), and LANES V outputs.
template <int INPUTS, int OUTPUTS, int SPLIT> struct Product {
    static constexpr int STRIDE = (INPUTS + SPLIT - 1) / SPLIT;    // inputs of a block
    static constexpr int READS = (STRIDE + GROUPS - 1) / GROUPS;   // of a thread
    static constexpr int BATCH = READS < AHEAD ? READS : AHEAD;    // of them at once
    int first, end, lane, group, column;
    Pack ahead[BATCH];

    __device__ Product() {
        first = blockIdx.y * STRIDE, end = min(INPUTS, first + STRIDE);
        lane = threadIdx.x % LANES, group = threadIdx.x / LANES;
        column = (blockIdx.x * LANES + lane) * V;
    }

    __device__ bool has(int read) const {
        return read < READS && column < OUTPUTS && first + group + read * GROUPS < end;
    }

    // Asks for the reads from this one on.
    __device__ void ask(const T *weight, int from) {
        const T *at = weight + (long long)(first + group + from * GROUPS) * OUTPUTS + column;
#pragma unroll
        for (int n = 0; n < BATCH; n++)
            if (has(from + n)) ahead[n] = load_early(at + n * GROUPS * OUTPUTS);
    }

    // A part of the sums, parts (SPLIT, ROWS, OUTPUTS).   x: (ROWS, pitch), the inputs from `first`
    // on
    __device__ void multiply(const W *x, int pitch, const T *weight, W *parts) {
        W sums[ROWS][V] = {};
#pragma unroll 1
        for (int from = 0; from < READS; from += BATCH) {
            if (from) ask(weight, from);
#pragma unroll
            for (int n = 0; n < BATCH; n++) {
                if (!has(from + n)) continue;
#pragma unroll
                for (int r = 0; r < ROWS; r++) {
                    W factor = x[r * pitch + group + (from + n) * GROUPS];
#pragma unroll
                    for (int v = 0; v < V; v++) sums[r][v] += factor * (W)ahead[n].v[v];
                }
            }
        }
        __shared__ W of_warps[WARPS][ROWS][LANES * V];
#pragma unroll
        for (int r = 0; r < ROWS; r++)
#pragma unroll
            for (int v = 0; v < V; v++) {
                W sum = sums[r][v];
#pragma unroll
                for (int lanes = LANES; lanes < 32; lanes *= 2)
                    sum += __shfl_xor_sync(ALL, sum, lanes);
                if (threadIdx.x % 32 < LANES) of_warps[threadIdx.x / 32][r][lane * V + v] = sum;
            }
        __syncthreads();
        for (int i = threadIdx.x; i < ROWS * LANES * V; i += THREADS) {
            int r = i / (LANES * V), c = i % (LANES * V), to = blockIdx.x * LANES * V + c;
            W sum = 0;
#pragma unroll
            for (int warp = 0; warp < WARPS; warp++) sum += of_warps[warp][r][c];
            if (to < OUTPUTS) parts[(blockIdx.y * ROWS + r) * OUTPUTS + to] = sum;
        }
    }
};

// The product of a norm of the stream, which has N parts.
template <int N, int OUTPUTS, int SPLIT>
__device__ inline void multiply_normed(const Stream &stream, const T *weight, W *parts) {
    Product<C, OUTPUTS, SPLIT> product;
    let_the_next_one_start();
    product.ask(weight, 0);
    stream.normed<N>(product.first, product.end);
    product.multiply(shared + product.first, C, weight, parts);
}

// The product of inputs that fill(row, input) makes, each for one thread.
template <int INPUTS, int OUTPUTS, int SPLIT, class F>
__device__ inline void multiply_made(const T *weight, W *parts, F fill) {
    Product<INPUTS, OUTPUTS, SPLIT> product;
    constexpr int STRIDE = product.STRIDE, EACH = (ROWS * STRIDE + THREADS - 1) / THREADS;
    let_the_next_one_start();
    product.ask(weight, 0);
    wait_for_the_one_before();
#pragma unroll
    for (int n = 0; n < EACH; n++) {
        int i = threadIdx.x + n * THREADS, r = i / STRIDE, k = product.first + i % STRIDE;
        if (i < ROWS * STRIDE && k < product.end) shared[i] = fill(r, k);
    }
    __syncthreads();
    product.multiply(shared, STRIDE, weight, parts);
}

// The first of all: its x are the embeddings.
KERNEL __launch_bounds__(256, BLOCKS)
first_qkv(const int *token, const int *seen, const T *tokens, const T *positions, W scale,
          const T *gain, const T *shift, W *next, W eps, const T *weight, W *qkv) {
    Stream stream = {token, seen, tokens, positions, scale, nullptr, nullptr, nullptr,
                     gain, shift, next, eps};
    multiply_normed<0, 3 * C, QKV>(stream, weight, qkv);
}

KERNEL __launch_bounds__(256, BLOCKS)
next_qkv(const W *x, const W *contracted, const T *bias, const T *gain, const T *shift, W *next,
         W eps, const T *weight, W *qkv) {
    Stream stream = {nullptr, nullptr, nullptr, nullptr, 0, x, contracted, bias,
                     gain, shift, next, eps};
    multiply_normed<CONTRACTED, 3 * C, QKV>(stream, weight, qkv);
}

KERNEL __launch_bounds__(256, BLOCKS)
expand(const W *x, const W *projected, const T *bias, const T *gain, const T *shift, W *next,
       W eps, const T *weight, W *expanded) {
    Stream stream = {nullptr, nullptr, nullptr, nullptr, 0, x, projected, bias,
                     gain, shift, next, eps};
    multiply_normed<PROJECTED, 4 * C, EXPANDED>(stream, weight, expanded);
}

// attended: (ROWS, C / D, PARTS, D + 2)
KERNEL __launch_bounds__(256, BLOCKS)
project(const W *attended, const T *weight, W *projected) {
    multiply_made<C, C, PROJECTED>(weight, projected, [&](int r, int k) {
        const W *of_head = attended + (r * (C / D) + k / D) * PARTS * (D + 2);
        W top = -INFINITY, sum = 0, output = 0;
#pragma unroll
        for (int n = 0; n < PARTS; n++) top = max(top, of_head[n * (D + 2) + D]);
#pragma unroll
        for (int n = 0; n < PARTS; n++) {
            const W *part = of_head + n * (D + 2);
            W weight = exp(part[D] - top);
            sum += weight * part[D + 1];
            output += weight * part[k % D];
        }
        return output / sum;
    });
}

KERNEL __launch_bounds__(256, BLOCKS)
contract(const W *expanded, const T *bias, int relu, const T *weight, W *contracted) {
    multiply_made<4 * C, C, CONTRACTED>(weight, contracted, [&](int r, int k) {
        W sum = joined<EXPANDED>(expanded + r * 4 * C + k, ROWS * 4 * C);
        return activated(or_zero(bias, k) + sum, relu);
    });
}

// -- the head

constexpr int TOKENS = 4;  // of a warp, at once

// A head that is the token table, (vocabulary, C): a warp has a row of it.
KERNEL __launch_bounds__(256)
head(const W *x, const W *contracted, const T *bias, const T *gain, const T *shift, W eps,
             const T *table, float *logits, int vocabulary, int pitch) {
    int warp = blockIdx.x * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    let_the_next_one_start();
    for (int n = 0; n < TOKENS; n++)
        for (int c = lane * V; c < C; c += 32 * V)
            hint(table + (long long)min(warp * TOKENS + n, vocabulary - 1) * C + c);
    Stream stream = {nullptr, nullptr, nullptr, nullptr, 0, x, contracted, bias,
                     gain, shift, nullptr, eps};
    stream.normed<CONTRACTED>(0, C);
    for (int first = warp * TOKENS; first < vocabulary; first += gridDim.x * WARPS * TOKENS) {
        W sums[TOKENS][ROWS] = {};
        for (int c = lane * V; c < C; c += 32 * V) {
            Pack packs[TOKENS];
#pragma unroll
            for (int n = 0; n < TOKENS; n++)
                packs[n] = load_early(table + (long long)min(first + n, vocabulary - 1) * C + c);
#pragma unroll
            for (int r = 0; r < ROWS; r++)
#pragma unroll
                for (int v = 0; v < V; v++) {
                    W factor = shared[r * C + c + v];
#pragma unroll
                    for (int n = 0; n < TOKENS; n++) sums[n][r] += factor * (W)packs[n].v[v];
                }
        }
#pragma unroll
        for (int n = 0; n < TOKENS; n++)
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                W sum = warp_sum(sums[n][r]);
                if (lane == 0 && first + n < vocabulary)
                    logits[(long long)r * pitch + first + n] = (float)sum;
            }
    }
}

// A head of its own, (C, vocabulary).
KERNEL __launch_bounds__(256)
own_head(const W *x, const W *contracted, const T *bias, const T *gain, const T *shift,
                 W eps, const T *weight, float *logits, int vocabulary, int pitch) {
    let_the_next_one_start();
    Stream stream = {nullptr, nullptr, nullptr, nullptr, 0, x, contracted, bias,
                     gain, shift, nullptr, eps};
    stream.normed<CONTRACTED>(0, C);
    for (int i = blockIdx.x * THREADS + threadIdx.x; i < vocabulary; i += gridDim.x * THREADS) {
        W sums[ROWS] = {};
#pragma unroll 8
        for (int c = 0; c < C; c++) {
            W value = (W)weight[(long long)c * vocabulary + i];
#pragma unroll
            for (int r = 0; r < ROWS; r++) sums[r] += shared[r * C + c] * value;
        }
        for (int r = 0; r < ROWS; r++) logits[(long long)r * pitch + i] = (float)sums[r];
    }
}
