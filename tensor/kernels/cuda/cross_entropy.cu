// Cross-entropy of rows of logits, and the gradient of the logits.
//
//   loss = certain * (ln s - (x[target] - m)) + spread * (ln s - (mean of x - m))
//   dlogits = (p - q) * dloss,   p = e^(x - m) / s,   q = certain * onehot + spread / classes
//   m = max x,   s = sum e^(x - m),   spread = the label smoothing,   certain = 1 - spread
//
// logits x, dlogits: (rows, classes)   targets: (rows), as 64-bit or 32-bit integers, the other
// pointer is null   losses, peaks m, sums s: (rows), W   count, loss: (1), W
//
// A target equal to `ignored` (where `ignoring`) counts for nothing: a loss of 0 and a gradient of
// 0, whatever its logits hold. A target outside the classes gives a loss of NaN.
//
// One block a row; sums are W. `cross_entropy_in_place` makes the loss of a row and, if `learning`,
// writes p - q over its logits. The row stays in shared memory in between, if it fits (`kept`):
// one read and one write of memory, 4 bytes an element of bf16. From a row to the next are `pitch`
// elements; those beyond the classes may be anything.

#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif

constexpr W LOWEST = sizeof(W) == 8 ? -1.7976931348623157e308 : -3.4028234663852886e38;
constexpr int BLOCKS = sizeof(T) < 8 ? 2 : 1;  // of 1024 threads, on one multiprocessor

struct Row {
    W peak, sum, mean;
};

struct Target {
    long long id;
    bool used;
};

__device__ inline Target target_of(const long long *wide, const int *narrow, int row, int ignoring,
                                   long long ignored) {
    long long id = wide ? wide[row] : narrow[row];
    return {id, !(ignoring && id == ignored)};
}

__device__ inline W exponential(W x) {
    if constexpr (sizeof(T) == 2) return __expf(x);  // exact to a part of 2^20
    else return exp(x);
}

// The sum or the largest of a value of each thread of the block, for every thread.
__device__ inline W block_sum(W value) {
    __shared__ W parts[32];
    value = warp_sum(value);
    __syncthreads();  // the parts of a sum before have been read
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = value;
    __syncthreads();
    return warp_sum(threadIdx.x % 32 < blockDim.x / 32 ? parts[threadIdx.x % 32] : 0);
}

__device__ inline W block_max(W value) {
    __shared__ W parts[32];
    value = warp_max(value);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = value;
    __syncthreads();
    return warp_max(threadIdx.x % 32 < blockDim.x / 32 ? parts[threadIdx.x % 32] : LOWEST);
}

// Peak, sum and mean of a row, the same for every thread. The mean is made only where `smooth`.
// copy: where to keep the row; each thread reads back only what it wrote itself.
//
// A thread begins with the lowest finite peak, and not -infinity: -infinity less itself is NaN.
__device__ inline Row row_of(const T *__restrict__ x, T *__restrict__ copy, int classes,
                             bool smooth) {
    W peak = LOWEST, sum = 0, mean = 0, share = (W)1 / classes;
    for (int i = threadIdx.x * V; i < classes; i += blockDim.x * V) {
        Pack pack = load(x + i);
        if (copy) store(copy + i, pack);
        if (i + V > classes) {  // beyond the row
#pragma unroll
            for (int j = 0; j < V; j++)
                if (i + j >= classes) pack.v[j] = (T)-INFINITY;
        }
        W before = peak;
        for (int j = 0; j < V; j++) peak = max(peak, (W)pack.v[j]);
        sum *= exponential(before - peak);
        for (int j = 0; j < V; j++) sum += exponential((W)pack.v[j] - peak);
        if (smooth) for (int j = 0; j < V; j++) mean += i + j < classes ? (W)pack.v[j] * share : 0;
    }
    W all = block_max(peak);
    sum = block_sum(sum * exponential(peak - all));
    return {all, sum, smooth ? block_sum(mean) : 0};
}

__device__ inline W loss_of(Row row, const T *x, long long target, int classes, W spread) {
    if (target < 0 || target >= classes) return nan("");
    W total = log(row.sum);
    W loss = total - ((W)x[target] - row.peak);
    // without smoothing the mean is not looked at: it may be infinite
    return spread == 0 ? loss : (1 - spread) * loss + spread * (total - (row.mean - row.peak));
}

// (p - q) * share for one row, from `x` to `dx`, which may be the same memory.
__device__ inline void gradient_of(const T *x, T *dx, W peak, W sum, long long target, int classes,
                                   W spread, W share) {
    W inverse = 1 / sum, low = spread / classes, certain = 1 - spread;
    for (int i = threadIdx.x * V; i < classes; i += blockDim.x * V) {
        Pack pack = load(x + i);
        bool has_target = i <= target && target < i + V;
        for (int j = 0; j < V; j++) {
            W difference = exponential((W)pack.v[j] - peak) * inverse - low;
            if (has_target && i + j == target) difference -= certain;
            pack.v[j] = (T)(difference * share);
        }
        store(dx + i, pack);
    }
}

__device__ inline void clear(T *x, int classes) {
    Pack zero;
    for (int j = 0; j < V; j++) zero.v[j] = (T)(W)0;
    for (int i = threadIdx.x * V; i < classes; i += blockDim.x * V) store(x + i, zero);
}

KERNEL __launch_bounds__(1024, BLOCKS) cross_entropy_in_place(
    T *logits, const long long *wide, const int *narrow, W *losses, int pitch, int classes, W spread,
    int ignoring, long long ignored, int learning, int kept) {
    extern __shared__ uint4 memory[];
    T *x = logits + (long long)blockIdx.x * pitch;
    T *copy = kept ? reinterpret_cast<T *>(memory) : nullptr;
    Target target = target_of(wide, narrow, blockIdx.x, ignoring, ignored);
    if (!target.used) {
        if (threadIdx.x == 0) losses[blockIdx.x] = 0;
        if (learning) clear(x, classes);
        return;
    }
    Row row = row_of(x, copy, classes, spread != 0);
    if (threadIdx.x == 0) losses[blockIdx.x] = loss_of(row, x, target.id, classes, spread);
    __syncthreads();  // x[target] is read before it is overwritten
    if (learning)
        gradient_of(copy ? copy : x, x, row.peak, row.sum, target.id, classes, spread, 1);
}

KERNEL __launch_bounds__(1024, BLOCKS) cross_entropy_forward(
    const T *logits, const long long *wide, const int *narrow, W *losses, W *peaks, W *sums,
    int classes, W spread, int ignoring, long long ignored) {
    const T *x = logits + (long long)blockIdx.x * classes;
    Target target = target_of(wide, narrow, blockIdx.x, ignoring, ignored);
    if (!target.used) {
        if (threadIdx.x == 0) losses[blockIdx.x] = 0;
        return;
    }
    Row row = row_of(x, nullptr, classes, spread != 0);
    if (threadIdx.x) return;
    losses[blockIdx.x] = loss_of(row, x, target.id, classes, spread);
    peaks[blockIdx.x] = row.peak;
    sums[blockIdx.x] = row.sum;
}

// dloss: (rows) where `each`, else (1). It is divided by `count`, if that is not null.
KERNEL __launch_bounds__(1024, BLOCKS) cross_entropy_backward(
    const T *logits, const long long *wide, const int *narrow, const W *peaks, const W *sums,
    const T *dloss, const W *count, T *dx, int classes, W spread, int ignoring, long long ignored,
    int each) {
    long long start = (long long)blockIdx.x * classes;
    Target target = target_of(wide, narrow, blockIdx.x, ignoring, ignored);
    if (!target.used) {
        clear(dx + start, classes);
        return;
    }
    W share = (W)dloss[each ? blockIdx.x : 0] / (count ? count[0] : 1);
    gradient_of(logits + start, dx + start, peaks[blockIdx.x], sums[blockIdx.x], target.id, classes,
                spread, share);
}

// loss = the sum of the losses, divided by count where `mean`.   count = the targets that are used,
// at least 1. One block; sums in double, always in the same order.
KERNEL cross_entropy_total(const W *losses, const long long *wide, const int *narrow, W *loss,
                           W *count, int rows, int ignoring, long long ignored, int mean) {
    __shared__ double sums[32];
    __shared__ int counts[32];
    double sum = 0;
    int used = 0;
    #pragma unroll 4
    for (int row = threadIdx.x; row < rows; row += blockDim.x) {
        sum += losses[row];
        used += target_of(wide, narrow, row, ignoring, ignored).used;
    }
    for (int step = 16; step; step /= 2) sum += __shfl_xor_sync(ALL, sum, step);
    used = __reduce_add_sync(ALL, used);
    if (threadIdx.x % 32 == 0) {
        sums[threadIdx.x / 32] = sum;
        counts[threadIdx.x / 32] = used;
    }
    __syncthreads();
    if (threadIdx.x) return;
    for (int warp = 1; warp < blockDim.x / 32; warp++) {
        sum += sums[warp];
        used += counts[warp];
    }
    count[0] = max(used, 1);
    loss[0] = mean ? sum / max(used, 1) : sum;
}

// dx = x * dloss / count, by rows of C elements; a row whose target is not used stays 0 also where
// dloss is not finite. count null: 1.
KERNEL scale_rows(const T *x, const long long *wide, const int *narrow, const W *dloss,
                  const W *count, T *dx, int rows, int C, int ignoring, long long ignored) {
    long long i = ((long long)blockIdx.x * blockDim.x + threadIdx.x) * V;
    if (i >= (long long)rows * C) return;
    bool used = target_of(wide, narrow, i / C, ignoring, ignored).used;
    W share = used ? dloss[0] / (count ? count[0] : 1) : 0;
    Pack pack = load(x + i);
    for (int j = 0; j < V; j++) pack.v[j] = (T)((W)pack.v[j] * share);
    store(dx + i, pack);
}

// out = x * dloss / count, or out += that where `add`, rounded once.   x: (size), W   out: (size)
KERNEL scale_into(const W *x, const W *dloss, const W *count, T *out, long long size, int add) {
    long long i = ((long long)blockIdx.x * blockDim.x + threadIdx.x) * V;
    if (i >= size) return;
    W share = dloss[0] / (count ? count[0] : 1);
    Sums sums = load_sums(x + i);
    Pack pack;
    if (add) pack = load(out + i);
    for (int j = 0; j < V; j++) {
        W value = sums.v[j] * share;
        pack.v[j] = (T)(add ? (W)pack.v[j] + value : value);
    }
    store(out + i, pack);
}
