// A whole decoder on one new token of each of a few texts: what generation does for every token.
//
//   x = scale tokens[id] + positions[seen]
//   in each layer:  x += attention(norm(x)) W + b,   x += activation(norm(x) W1 + b1) W2 + b2
//   logits = norm(x) head
//
// x: (ROWS, C)   weights: (inputs, outputs), Q   keys, values: (ROWS, heads, capacity, D), T
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
// Weights of 8 bits are whole numbers q: y = scale (x q). The scale of an output multiplies each
// part of its sum once.   scales: (outputs), null for other weights
//
// The launcher defines:
//
//   Q      the type of the weights: T, or signed char
//   ROWS   1 or 2
//   C      the width
//   D      the numbers of a head, a multiple of V
//   QKV, PROJECTED, EXPANDED, CONTRACTED   the parts of a sum of each product
//   PARTS  the parts of a head's keys

#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif

constexpr bool ROUNDED = sizeof(Q) == 1;  // to 8 bits
constexpr int WARPS = 8, THREADS = 32 * WARPS;
constexpr int LANES = 4;                 // of a weight's row, 16 bytes each
constexpr int PACKED = 16 / sizeof(Q);   // weights in 16 bytes
constexpr int GROUPS = THREADS / LANES;  // rows at once
constexpr int AHEAD = 8;                 // rows on their way to each thread
constexpr int BLOCKS = 3;                // at once: those that wait have their weights already

// Neighbours in a row of a weight: one load of 16 bytes.
template <class E> struct alignas(16) Neighbours {
    E v[PACKED];

    __device__ W operator[](int i) const { return (W)v[i]; }
};

// Bytes stay together, four in a register, until they are multiplied. The float with the bits
// 0x4b000000 + n is 2^23 + n. So a subtraction takes the place of a conversion, which is slower.
template <> struct alignas(16) Neighbours<signed char> {
    unsigned v[4];

    __device__ W operator[](int i) const {
        unsigned four = v[i / 4] ^ 0x80808080;  // q + 128 of each
        unsigned bits = __byte_perm(four, 0x4b000000, 0x7440 + i % 4);
        return *reinterpret_cast<float *>(&bits) - ((1 << 23) + 128);
    }
};

using Weights = Neighbours<Q>;

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

// The scale of an output, of so many, asked for early; 1 where the weight is not rounded.
__device__ inline W scale_of(const W *scales, int output, int outputs) {
    if constexpr (ROUNDED) return load_one_early(scales + min(output, outputs - 1));
    return 1;
}

// y = x W, where a block has a share of the inputs, [first, end), and LANES PACKED outputs.
template <int INPUTS, int OUTPUTS, int SPLIT> struct Product {
    static constexpr int STRIDE = (INPUTS + SPLIT - 1) / SPLIT;    // inputs of a block
    static constexpr int READS = (STRIDE + GROUPS - 1) / GROUPS;   // of a thread
    static constexpr int BATCH = READS < AHEAD ? READS : AHEAD;    // of them at once
    static constexpr int COLUMNS = LANES * PACKED;                 // outputs of a block
    int first, end, lane, group, column;
    Weights ahead[BATCH];

    __device__ Product() {
        first = blockIdx.y * STRIDE, end = min(INPUTS, first + STRIDE);
        lane = threadIdx.x % LANES, group = threadIdx.x / LANES;
        column = (blockIdx.x * LANES + lane) * PACKED;
    }

    __device__ bool has(int read) const {
        return read < READS && column < OUTPUTS && first + group + read * GROUPS < end;
    }

    // Asks for the reads from this one on.
    __device__ void ask(const Q *weight, int from) {
        const Q *at = weight + (long long)(first + group + from * GROUPS) * OUTPUTS + column;
#pragma unroll
        for (int n = 0; n < BATCH; n++)
            if (has(from + n)) ahead[n] = load_early<Weights>(at + n * GROUPS * OUTPUTS);
    }

    // The scale of the output whose sum the thread writes.
    __device__ W own_scale(const W *scales) const {
        return scale_of(scales, blockIdx.x * COLUMNS + threadIdx.x % COLUMNS, OUTPUTS);
    }

    // A part of the sums, parts (SPLIT, ROWS, OUTPUTS).   x: (ROWS, pitch), the inputs from `first`
    // on
    __device__ void multiply(const W *x, int pitch, const Q *weight, W scale, W *parts) {
        W sums[ROWS][PACKED] = {};
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
                    for (int v = 0; v < PACKED; v++) sums[r][v] += factor * ahead[n][v];
                }
            }
        }
        __shared__ W of_warps[WARPS][ROWS][COLUMNS];
#pragma unroll
        for (int r = 0; r < ROWS; r++)
#pragma unroll
            for (int v = 0; v < PACKED; v++) {
                W sum = sums[r][v];
#pragma unroll
                for (int lanes = LANES; lanes < 32; lanes *= 2)
                    sum += __shfl_xor_sync(ALL, sum, lanes);
                if (threadIdx.x % 32 < LANES)
                    of_warps[threadIdx.x / 32][r][lane * PACKED + v] = sum;
            }
        __syncthreads();
        for (int i = threadIdx.x; i < ROWS * COLUMNS; i += THREADS) {
            int r = i / COLUMNS, c = i % COLUMNS, to = blockIdx.x * COLUMNS + c;
            W sum = 0;
#pragma unroll
            for (int warp = 0; warp < WARPS; warp++) sum += of_warps[warp][r][c];
            if (to < OUTPUTS) parts[(blockIdx.y * ROWS + r) * OUTPUTS + to] = scale * sum;
        }
    }
};

// The product of a norm of the stream, which has N parts.
template <int N, int OUTPUTS, int SPLIT>
__device__ inline void multiply_normed(const Stream &stream, const Q *weight, const W *scales,
                                       W *parts) {
    Product<C, OUTPUTS, SPLIT> product;
    let_the_next_one_start();
    product.ask(weight, 0);
    W scale = product.own_scale(scales);
    stream.normed<N>(product.first, product.end);
    product.multiply(shared + product.first, C, weight, scale, parts);
}

// The product of inputs that fill(row, input) makes, each for one thread.
template <int INPUTS, int OUTPUTS, int SPLIT, class F>
__device__ inline void multiply_made(const Q *weight, const W *scales, W *parts, F fill) {
    Product<INPUTS, OUTPUTS, SPLIT> product;
    constexpr int STRIDE = product.STRIDE, EACH = (ROWS * STRIDE + THREADS - 1) / THREADS;
    let_the_next_one_start();
    product.ask(weight, 0);
    W scale = product.own_scale(scales);
    wait_for_the_one_before();
#pragma unroll
    for (int n = 0; n < EACH; n++) {
        int i = threadIdx.x + n * THREADS, r = i / STRIDE, k = product.first + i % STRIDE;
        if (i < ROWS * STRIDE && k < product.end) shared[i] = fill(r, k);
    }
    __syncthreads();
    product.multiply(shared, STRIDE, weight, scale, parts);
}

// The first of all: its x are the embeddings.
KERNEL __launch_bounds__(256, BLOCKS)
first_qkv(const int *token, const int *seen, const T *tokens, const T *positions, W scale,
          const T *gain, const T *shift, W *next, W eps, const Q *weight, const W *scales,
          W *qkv) {
    Stream stream = {token, seen, tokens, positions, scale, nullptr, nullptr, nullptr,
                     gain, shift, next, eps};
    multiply_normed<0, 3 * C, QKV>(stream, weight, scales, qkv);
}

KERNEL __launch_bounds__(256, BLOCKS)
next_qkv(const W *x, const W *contracted, const T *bias, const T *gain, const T *shift, W *next,
         W eps, const Q *weight, const W *scales, W *qkv) {
    Stream stream = {nullptr, nullptr, nullptr, nullptr, 0, x, contracted, bias,
                     gain, shift, next, eps};
    multiply_normed<CONTRACTED, 3 * C, QKV>(stream, weight, scales, qkv);
}

KERNEL __launch_bounds__(256, BLOCKS)
expand(const W *x, const W *projected, const T *bias, const T *gain, const T *shift, W *next,
       W eps, const Q *weight, const W *scales, W *expanded) {
    Stream stream = {nullptr, nullptr, nullptr, nullptr, 0, x, projected, bias,
                     gain, shift, next, eps};
    multiply_normed<PROJECTED, 4 * C, EXPANDED>(stream, weight, scales, expanded);
}

// attended: (ROWS, C / D, PARTS, D + 2)
KERNEL __launch_bounds__(256, BLOCKS)
project(const W *attended, const Q *weight, const W *scales, W *projected) {
    multiply_made<C, C, PROJECTED>(weight, scales, projected, [&](int r, int k) {
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
contract(const W *expanded, const T *bias, int relu, const Q *weight, const W *scales,
         W *contracted) {
    multiply_made<4 * C, C, CONTRACTED>(weight, scales, contracted, [&](int r, int k) {
        W sum = joined<EXPANDED>(expanded + r * 4 * C + k, ROWS * 4 * C);
        return activated(or_zero(bias, k) + sum, relu);
    });
}

// -- the head

constexpr int TOKENS = 4;  // of a warp, at once

// A head like the token table, (vocabulary, C): a warp has a row of it.
KERNEL __launch_bounds__(256)
head(const W *x, const W *contracted, const T *bias, const T *gain, const T *shift, W eps,
             const Q *table, const W *scales, float *logits, int vocabulary, int pitch) {
    int warp = blockIdx.x * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    let_the_next_one_start();
    for (int n = 0; n < TOKENS; n++)
        for (int c = lane * PACKED; c < C; c += 32 * PACKED)
            hint(table + (long long)min(warp * TOKENS + n, vocabulary - 1) * C + c);
    Stream stream = {nullptr, nullptr, nullptr, nullptr, 0, x, contracted, bias,
                     gain, shift, nullptr, eps};
    stream.normed<CONTRACTED>(0, C);
    for (int first = warp * TOKENS; first < vocabulary; first += gridDim.x * WARPS * TOKENS) {
        W sums[TOKENS][ROWS] = {}, scale[TOKENS];
#pragma unroll
        for (int n = 0; n < TOKENS; n++)
            scale[n] = scale_of(scales, first + n, vocabulary);
        for (int c = lane * PACKED; c < C; c += 32 * PACKED) {
            Weights packs[TOKENS];
#pragma unroll
            for (int n = 0; n < TOKENS; n++)
                packs[n] = load_early<Weights>(
                    table + (long long)min(first + n, vocabulary - 1) * C + c);
#pragma unroll
            for (int r = 0; r < ROWS; r++)
#pragma unroll
                for (int v = 0; v < PACKED; v++) {
                    W factor = shared[r * C + c + v];
#pragma unroll
                    for (int n = 0; n < TOKENS; n++) sums[n][r] += factor * packs[n][v];
                }
        }
#pragma unroll
        for (int n = 0; n < TOKENS; n++)
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                W sum = warp_sum(sums[n][r]);
                if (lane == 0 && first + n < vocabulary)
                    logits[(long long)r * pitch + first + n] = (float)(scale[n] * sum);
            }
    }
}

// A head of its own, (C, vocabulary), which is not rounded.
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
