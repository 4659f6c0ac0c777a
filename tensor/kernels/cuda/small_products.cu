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

// An operand, as a block sees it: in memory it goes `side` from one row or column of the tile to the
// next, and `along` from one k to the next.
struct View {
    const T *start, *at;
    int side, along, first, end;  // first, end: of the rows or columns; a tile begins at `first`
};

// Where a thread's pack number n lies in the tile: at i, and at k. Neighbours in memory are taken
// together.
struct Spot {
    int i, k;
    bool inside;
    long long place;

    __device__ Spot(const View &x, int n, int k_first, int k_end) {
        bool along = x.along == 1 && x.side != 1;
        i = along ? n % SIDE : n % (SIDE / V) * V;
        k = along ? n / SIDE * V : n / (SIDE / V);
        inside = k_first + k < k_end && x.first + i < x.end;
        place = (long long)(x.first + i) * x.side + (long long)(k_first + k) * x.along;
    }
};

// lines[k][i] = the element of row or column `first` + i, and of k_first + k; 0 outside.
__device__ inline void bring(const View &x, W (*lines)[PITCH], int k_first, int k_end) {
    int packs = SIDE * min(DEPTH, (k_end - k_first + V - 1) / V * V) / V;
    bool along = x.along == 1 && x.side != 1;
    int next = along ? PITCH : 1;  // from one number of a pack to the next, in shared memory
#pragma unroll 4
    for (int n = threadIdx.x; n < packs; n += THREADS) {
        Spot spot(x, n, k_first, k_end);
        Pack pack = {};
        if (spot.inside) pack = load(x.start + spot.place);
        for (int v = 0; v < V; v++) (&lines[spot.k][spot.i])[v * next] = (W)pack.v[v];
    }
    if (!x.at) return;
#pragma unroll 2
    for (int n = threadIdx.x; n < packs; n += THREADS) {  // what this thread brought itself
        Spot spot(x, n, k_first, k_end);
        Pack pack = {};
        if (spot.inside) pack = load(x.at + spot.place);
        W *own = &lines[spot.k][spot.i];
        for (int v = 0; v < V; v++) own[v * next] = gelu_gradient(own[v * next], (W)pack.v[v]);
    }
}

// The sum of what the groups have for the result of this thread.
__device__ inline W over_groups(W (*parts)[SIDE * SIDE]) {
    W sum = 0;
    for (int group = 0; group < GROUPS; group++) sum += parts[group][threadIdx.x];
    return sum;
}

__device__ inline void multiply(const Product p, int tile) {
    extern __shared__ W memory[];
    W(*a)[PITCH] = reinterpret_cast<W(*)[PITCH]>(memory);
    W(*b)[PITCH] = a + DEPTH;
    W(*parts)[SIDE * SIDE] = reinterpret_cast<W(*)[SIDE * SIDE]>(memory);
    int across = (p.J + SIDE - 1) / SIDE, top = tile / across * SIDE, left = tile % across * SIDE;
    int group = threadIdx.x / SIDE, own = threadIdx.x % SIDE, i = own / 4 * 4, j = own % 4 * 4;
    W results[16] = {}, sums[4] = {};  // 4 x 4, and of 4 columns of b
#pragma unroll 1
    for (int first = 0; first < p.K; first += DEPTH) {
        __syncthreads();  // all have used what was brought before
#pragma unroll 1  // less code: a short kernel waits for its own code
        for (int right = 0; right < 2; right++) {
            View rows = {p.a.start, p.a.at, p.a.down, p.a.across, top, p.I};
            View columns = {p.b.start, p.b.at, p.b.across, p.b.down, left, p.J};
            bring(right ? columns : rows, right ? b : a, first, p.K);
        }
        __syncthreads();
        int count = min(DEPTH, p.K - first);
#pragma unroll 4
        for (int k = group; k < count; k += GROUPS) {
            Four x = *reinterpret_cast<Four *>(&a[k][i]), y = *reinterpret_cast<Four *>(&b[k][j]);
#pragma unroll
            for (int m = 0; m < 16; m++) results[m] += x.v[m / 4] * y.v[m % 4];
#pragma unroll
            for (int n = 0; n < 4; n++) sums[n] += y.v[n];
        }
    }
    __syncthreads();
#pragma unroll
    for (int m = 0; m < 16; m++) parts[group][m * SIDE + own] = results[m];
    __syncthreads();
    W result = over_groups(parts);
    int row = top + i + group / 4, column = left + j + group % 4;
    long long at = (long long)row * p.J + column;
    if (row < p.I && column < p.J) {
        if (p.bias) result += (W)p.bias[column];
        if (p.add) result += (W)p.out[at];
        p.out[at] = (T)result;
        if (p.activated) p.activated[at] = (T)gelu(result);
    }
    if (!p.sums || top > 0) return;  // the same sums in each row of tiles
    __syncthreads();
#pragma unroll
    for (int n = 0; n < 4; n++)
        if (i == 0) parts[group][j + n] = sums[n];
    __syncthreads();
    column = left + threadIdx.x;
    if (threadIdx.x < SIDE && column < p.J) {
        W sum = over_groups(parts);
        p.sums[column] = (T)(p.add_sums ? (W)p.sums[column] + sum : sum);
    }
}

// The blocks from `tiles` on are those of the second product.
KERNEL __launch_bounds__(THREADS) small_products(Product first, Product second, int tiles) {
    bool is_first = blockIdx.x < tiles;
    multiply(is_first ? first : second, is_first ? blockIdx.x : blockIdx.x - tiles);
}
