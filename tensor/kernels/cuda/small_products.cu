// Products of small matrices, with what comes before and after them: one launch for a linear layer,
// and one for all its gradients.
//
//   out[i, j] = bias[j] + sum over k of a[i, k] b[k, j]       activated = gelu(out)
//   sums[j]   = sum over k of b[k, j]
//
// An operand with `at` has each element times gelu'(at), at its place: dy becomes the gradient
// before GELU while it is read.   out, activated: (I, J), row-major   `add`: onto what is there
//
// A library's tiles of 128 x 128 leave most of a GPU idle here. A block has 16 x 16 results. It
// brings 256 columns of a and 256 rows of b to shared memory at once, so it waits for memory once.
// 16 groups of 16 threads share the k's: a group takes every 16th, a thread has 4 x 4 results. Then
// the parts of the groups are added in their order: the same bits every time.

constexpr int SIDE = 16, GROUPS = 16, DEPTH = 256;  // of a tile, of its k's, of what is brought
constexpr int THREADS = 256;
constexpr int PITCH = SIDE + 4;  // of a line in shared memory: fewer lines meet in a bank

// element (i, j) = start[i * down + j * across]; one of the two is 1
struct Operand {
    const T *start, *at;
    int down, across;
};

struct Product {
    Operand a, b;
    T *out, *activated, *sums;
    const T *bias;
    int I, J, K, add, add_sums;
};

// Four neighbours of a line in shared memory.
struct alignas(4 * sizeof(W)) Four {
    W v[4];
};

// lines[k][i] = the element of row or column start + i, and of k from `first` on; 0 outside. A thread
// reads V neighbours in memory.   side_step, k_step: in memory, from one i and from one k to the next
__device__ inline void bring(const Operand &x, W (*lines)[PITCH], int side_step, int k_step,
                             int start, int end, int first, int last) {
    bool along_k = k_step == 1 && side_step != 1;
    int depth = min(DEPTH, (last - first + V - 1) / V * V);
#pragma unroll 4
    for (int n = threadIdx.x; n < SIDE * depth / V; n += THREADS) {
        int i = along_k ? n % SIDE : n % (SIDE / V) * V;
        int k = along_k ? n / SIDE * V : n / (SIDE / V);
        Pack pack, at;
        bool inside = first + k < last && start + i < end;
        long long place = (long long)(start + i) * side_step + (long long)(first + k) * k_step;
        if (inside) pack = load(x.start + place);
        if (inside && x.at) at = load(x.at + place);
        for (int v = 0; v < V; v++) {
            W value = inside ? (W)pack.v[v] : (W)0;
            if (inside && x.at) value = gelu_gradient(value, (W)at.v[v]);
            if (along_k) lines[k + v][i] = value;
            else lines[k][i + v] = value;
        }
    }
}

// The sum of what the groups have for the result of this thread.
__device__ inline W over_groups(W (*parts)[SIDE * SIDE]) {
    W sum = 0;
    for (int group = 0; group < GROUPS; group++) sum += parts[group][threadIdx.x];
    return sum;
}

__device__ inline void multiply(const Product &p, int tile) {
    extern __shared__ W memory[];
    W(*a)[PITCH] = reinterpret_cast<W(*)[PITCH]>(memory);
    W(*b)[PITCH] = a + DEPTH;
    W(*parts)[SIDE * SIDE] = reinterpret_cast<W(*)[SIDE * SIDE]>(memory);
    int across = (p.J + SIDE - 1) / SIDE, top = tile / across * SIDE, left = tile % across * SIDE;
    int group = threadIdx.x / SIDE, own = threadIdx.x % SIDE, i = own / 4 * 4, j = own % 4 * 4;
    W results[4][4] = {}, sums[4] = {};
    for (int first = 0; first < p.K; first += DEPTH) {
        __syncthreads();  // all have used what was brought before
        bring(p.a, a, p.a.down, p.a.across, top, p.I, first, p.K);
        bring(p.b, b, p.b.across, p.b.down, left, p.J, first, p.K);
        __syncthreads();
        int count = min(DEPTH, p.K - first);
#pragma unroll 4
        for (int k = group; k < count; k += GROUPS) {
            Four x = *reinterpret_cast<Four *>(&a[k][i]), y = *reinterpret_cast<Four *>(&b[k][j]);
            for (int m = 0; m < 4; m++)
                for (int n = 0; n < 4; n++) results[m][n] += x.v[m] * y.v[n];
            for (int n = 0; n < 4; n++) sums[n] += y.v[n];
        }
    }
    __syncthreads();
    for (int m = 0; m < 4; m++)
        for (int n = 0; n < 4; n++) parts[group][(i + m) * SIDE + j + n] = results[m][n];
    __syncthreads();
    W result = over_groups(parts);
    int row = top + threadIdx.x / SIDE, column = left + threadIdx.x % SIDE;
    long long at = (long long)row * p.J + column;
    if (row < p.I && column < p.J) {
        if (p.bias) result += (W)p.bias[column];
        if (p.add) result += (W)p.out[at];
        p.out[at] = (T)result;
        if (p.activated) p.activated[at] = (T)gelu(result);
    }
    if (!p.sums || top > 0) return;  // the same sums in each row of tiles
    __syncthreads();
    if (i == 0)
        for (int n = 0; n < 4; n++) parts[group][j + n] = sums[n];
    __syncthreads();
    if (threadIdx.x < SIDE && column < p.J) {
        W sum = over_groups(parts);
        p.sums[column] = (T)(p.add_sums ? (W)p.sums[column] + sum : sum);
    }
}

// The blocks from `tiles` on are those of the second product.
KERNEL __launch_bounds__(THREADS) small_products(Product first, Product second, int tiles) {
    if (blockIdx.x < tiles) multiply(first, blockIdx.x);
    else multiply(second, blockIdx.x - tiles);
}
