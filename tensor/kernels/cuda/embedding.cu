// Rows of a table by their ids, and the gradient of the table.
//
//   y[n] = scale * table[ids[n]] + positions[n % T]         dtable[id] = scale * sum of dy[n], over
//   dpositions[t] = sum of dy[t], dy[T + t], ...            all n with ids[n] == id, n ascending
//
// ids: (N) 64-bit or 32-bit integers, the other pointer is null   table: (ids, C)   y, dy: (N, C)
// positions: (at least T, C), or null
// An id outside the table gives a row of NaN, and no gradient.
//
// dtable: first a counting sort orders the positions n by their ids, and those of one id by n. Then
// blocks add up stretches of STRETCH sorted rows, whatever the ids are: one id may have all
// rows. So the time does not depend on the ids, and the order of each sum is fixed.
//
//   rank_ids        counts[chunk, id] = how many of the id are in a chunk of positions;
//                   ranks[n] = how many equal ids stand before n in its chunk
//   add_chunks      counts[chunk, id] = how many of the id are in the chunks before;
//                   starts[id] = how many positions have a smaller id of the same tile of TILE ids;
//                   tiles[tile] = how many positions have an id of the tile
//   add_tiles       tiles[tile] = how many positions have an id of a tile before
//   sort_positions  order[place] = n,  place = starts + tiles + counts + ranks
//   add_stretches   dtable of the ids whose rows all lie in one stretch; the sum of the others goes
//                   into heads (of an id that began before) and tails (of an id that goes on)
//   join_stretches  dtable[id] = tail + head + head + ... of the ids that cross an edge
//
// Of a small table and few ids, `add_few` makes dtable in one launch: one block an id.
//
// Bytes: dy is read once; the sort moves about 20 for each chunk and id.

constexpr int TILE = 1024;
constexpr int STRETCH = 32;
constexpr int FEW = 1024;  // ids

// The id at n, or -1 for one outside the table.
__device__ inline int id_at(const long long *wide, const int *narrow, long long n, int size) {
    long long id = wide ? wide[n] : narrow[n];
    return 0 <= id && id < size ? (int)id : -1;
}

KERNEL embedding_forward(const long long *wide, const int *narrow, const T *table,
                         const T *positions, T *y, long long N, int period, int size, int C,
                         W scale) {
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    int packs = C / V;
    if (i >= N * packs) return;
    long long n = i / packs;
    int c = (i - n * packs) * V, id = id_at(wide, narrow, n, size);
    Pack out, position;
    if (id >= 0) out = load(table + (long long)id * C + c);
    if (positions) position = load(positions + (n % period) * C + c);
    for (int j = 0; j < V; j++) {
        W value = id < 0 ? nan("") : (W)out.v[j] * scale;
        out.v[j] = (T)(positions ? value + (W)position.v[j] : value);
    }
    store(y + n * C + c, out);
}

// One block a chunk, a thread for each position of a tile.   counts: (chunks, size), zeros before
KERNEL rank_ids(const long long *wide, const int *narrow, int *counts, int *ranks, int N, int size,
                int chunk) {
    extern __shared__ int ids[];
    int *own = counts + (long long)blockIdx.x * size;
    int first = blockIdx.x * chunk, last = min(N, first + chunk);
    for (int start = first; start < last; start += blockDim.x) {
        int n = start + threadIdx.x;
        int id = n < last ? id_at(wide, narrow, n, size) : -1;
        ids[threadIdx.x] = id;
        __syncthreads();
        int before = 0, all = 0;
        for (int j = 0; j < blockDim.x; j++) {
            int equal = ids[j] == id;
            all += equal;
            before += equal & (j < threadIdx.x);
        }
        int earlier = id < 0 ? 0 : own[id];
        __syncthreads();  // all have read
        if (n < last) ranks[n] = earlier + before;
        if (id >= 0 && before == all - 1) own[id] = earlier + all;
        __syncthreads();  // all have written
    }
}

// The sum of the values of the threads before this one, and of all threads of a block of TILE.
__device__ inline int sum_before(int value, int &all) {
    __shared__ int warps[32];
    int lane = threadIdx.x % 32, sum = value;
    for (int step = 1; step < 32; step *= 2) {
        int other = __shfl_up_sync(ALL, sum, step);
        if (lane >= step) sum += other;
    }
    if (lane == 31) warps[threadIdx.x / 32] = sum;
    __syncthreads();
    int before = sum - value;
    all = 0;
    for (int warp = 0; warp < TILE / 32; warp++) {
        if (warp < threadIdx.x / 32) before += warps[warp];
        all += warps[warp];
    }
    __syncthreads();
    return before;
}

// A thread an id, and one for the id after the last.   starts: (size + 1)   tiles: (tiles)
KERNEL add_chunks(int *counts, int *starts, int *tiles, int chunks, int size) {
    int id = blockIdx.x * TILE + threadIdx.x, total = 0;
    for (int first = 0; first < chunks && id < size; first += 8) {
        int some[8];
        for (int j = 0; j < 8; j++)
            some[j] = first + j < chunks ? counts[(long long)(first + j) * size + id] : 0;
        for (int j = 0; j < 8; j++) {
            if (first + j < chunks) counts[(long long)(first + j) * size + id] = total;
            total += some[j];
        }
    }
    int all, before = sum_before(total, all);
    if (id <= size) starts[id] = before;
    if (threadIdx.x == 0) tiles[blockIdx.x] = all;
}

// One block.
KERNEL add_tiles(int *tiles, int count) {
    int total = 0;
    for (int first = 0; first < count; first += TILE) {
        int i = first + threadIdx.x, all;
        int before = sum_before(i < count ? tiles[i] : 0, all);
        if (i < count) tiles[i] = total + before;
        total += all;
    }
}

// Where the positions of an id begin in the order; of the id after the last: how many are sorted.
__device__ inline int place_of(int id, const int *starts, const int *tiles) {
    return starts[id] + tiles[id / TILE];
}

KERNEL sort_positions(const long long *wide, const int *narrow, const int *counts,
                      const int *ranks, const int *starts, const int *tiles, int *order, int N,
                      int size, int chunk) {
    int n = blockIdx.x * blockDim.x + threadIdx.x;
    if (n >= N) return;
    int id = id_at(wide, narrow, n, size);
    if (id < 0) return;
    int before = counts[(long long)(n / chunk) * size + id];
    order[place_of(id, starts, tiles) + before + ranks[n]] = n;
}

// dtable[id] at c = scale * sums, or that is added.
__device__ inline void give(T *dtable, int id, int C, int c, Sums sums, W scale, int add) {
    T *out = dtable + (long long)id * C + c;
    Pack pack;
    if (add) pack = load(out);
    for (int j = 0; j < V; j++) {
        W value = sums.v[j] * scale;
        pack.v[j] = (T)(add ? (W)pack.v[j] + value : value);
    }
    store(out, pack);
}

// One block a stretch, a thread for each pack of columns.   heads, tails: (stretches, C)
KERNEL add_stretches(const long long *wide, const int *narrow, const int *order,
                     const int *starts, const int *tiles, const T *__restrict__ dy, T *dtable,
                     W *heads, W *tails, int size, int C, W scale, int add) {
    __shared__ int rows[STRETCH], ids[STRETCH + 2];  // with the ids on both sides
    int first = blockIdx.x * STRETCH, total = place_of(size, starts, tiles);
    int count = min(STRETCH, total - first);
    if (count <= 0) return;
    for (int i = threadIdx.x; i < count + 2; i += blockDim.x) {
        int place = first + i - 1;
        bool inside = 0 <= place && place < total;
        int row = inside ? order[place] : 0;
        ids[i] = inside ? id_at(wide, narrow, row, size) : -1;
        if (1 <= i && i <= count) rows[i - 1] = row;
    }
    __syncthreads();
    long long part = (long long)blockIdx.x * C;
    for (int c = threadIdx.x * V; c < C; c += blockDim.x * V) {
        Sums sums = {};
        bool began_before = ids[0] == ids[1];
        #pragma unroll 4
        for (int i = 0; i < count; i++) {
            Pack pack = load(dy + (long long)rows[i] * C + c);
            for (int j = 0; j < V; j++) sums.v[j] += (W)pack.v[j];
            bool ends = ids[i + 1] != ids[i + 2];
            if (!ends && i < count - 1) continue;
            if (ends && !began_before) give(dtable, ids[i + 1], C, c, sums, scale, add);
            else store_sums((began_before ? heads : tails) + part + c, sums);
            sums = {};
            began_before = false;
        }
    }
}

// One block a stretch: the sum of the id that begins in it and goes on.
KERNEL join_stretches(const long long *wide, const int *narrow, const int *order,
                      const int *starts, const int *tiles, const W *__restrict__ heads,
                      const W *tails, T *dtable, int size, int C, W scale, int add) {
    int first = blockIdx.x * STRETCH, next = first + STRETCH;
    if (next >= place_of(size, starts, tiles)) return;
    int id = id_at(wide, narrow, order[next - 1], size);
    int begin = place_of(id, starts, tiles), end = place_of(id + 1, starts, tiles);
    if (begin < first || end <= next) return;
    for (int c = threadIdx.x * V; c < C; c += blockDim.x * V) {
        Sums sums = load_sums(tails + (long long)blockIdx.x * C + c);
        #pragma unroll 8
        for (int stretch = blockIdx.x + 1; stretch <= (end - 1) / STRETCH; stretch++) {
            Sums more = load_sums(heads + (long long)stretch * C + c);
            for (int j = 0; j < V; j++) sums.v[j] += more.v[j];
        }
        give(dtable, id, C, c, sums, scale, add);
    }
}

// One block an id: which positions have the id, in their order, and the sum of their rows.
KERNEL add_few(const long long *wide, const int *narrow, const T *__restrict__ dy, T *dtable,
               int N, int size, int C, W scale, int add) {
    __shared__ int ids[FEW], rows[FEW], count;
    int own = blockIdx.x;
    if (threadIdx.x == 0) count = 0;
    for (int n = threadIdx.x; n < N; n += blockDim.x) ids[n] = id_at(wide, narrow, n, size);
    __syncthreads();
    for (int n = threadIdx.x; n < N; n += blockDim.x) {
        if (ids[n] != own) continue;
        int before = 0, all = 0;
        for (int j = 0; j < N; j++) {
            int equal = ids[j] == own;
            all += equal;
            before += equal & (j < n);
        }
        rows[before] = n;
        if (before == all - 1) count = all;
    }
    __syncthreads();
    for (int c = threadIdx.x * V; c < C; c += blockDim.x * V) {
        Sums sums = {};
        #pragma unroll 8
        for (int i = 0; i < count; i++) {
            Pack pack = load(dy + (long long)rows[i] * C + c);
            for (int j = 0; j < V; j++) sums.v[j] += (W)pack.v[j];
        }
        give(dtable, own, C, c, sums, scale, add);
    }
}

// dpositions = sum over the batch: out[i] = dy[i] + dy[n + i] + ..., 0 from n on, or that is added
KERNEL add_over_batch(const T *dy, T *out, int batch, long long n, long long size, int add) {
    long long i = ((long long)blockIdx.x * blockDim.x + threadIdx.x) * V;
    if (i >= size) return;
    W sums[V] = {};
    if (i < n) {
        #pragma unroll 4
        for (int b = 0; b < batch; b++) {
            Pack pack = load(dy + b * n + i);
            for (int j = 0; j < V; j++) sums[j] += (W)pack.v[j];
        }
    }
    Pack pack;
    if (add) pack = load(out + i);
    for (int j = 0; j < V; j++) pack.v[j] = (T)(add ? (W)pack.v[j] + sums[j] : sums[j]);
    store(out + i, pack);
}
