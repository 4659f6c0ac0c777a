// What the kernels share. The launcher defines T, W and V, and puts this file before each `.cu`
// file.
//
//   T   the type of the elements in memory
//   W   the type of arithmetic and sums: float, and double for double
//   V   the elements that a thread reads or writes at once: 16 bytes of them, or 1

#define KERNEL extern "C" __global__ void
constexpr unsigned ALL = 0xffffffffu;  // every lane of a warp

// V neighbours in memory: one load or store of 16 bytes
struct alignas(sizeof(T) * V) Pack {
    T v[V];
};

__device__ inline Pack load(const T *p) { return *reinterpret_cast<const Pack *>(p); }
__device__ inline void store(T *p, Pack x) { *reinterpret_cast<Pack *>(p) = x; }

// V sums side by side, by loads and stores of 16 bytes
struct alignas(sizeof(W) * V < 16 ? sizeof(W) * V : 16) Sums {
    W v[V];
};

__device__ inline Sums load_sums(const W *p) { return *reinterpret_cast<const Sums *>(p); }
__device__ inline void store_sums(W *p, Sums x) { *reinterpret_cast<Sums *>(p) = x; }

__device__ inline W warp_sum(W value) {
    for (int step = 16; step; step /= 2) value += __shfl_xor_sync(ALL, value, step);
    return value;
}

__device__ inline W warp_max(W value) {
    for (int step = 16; step; step /= 2) {
        W other = __shfl_xor_sync(ALL, value, step);
        value = value > other ? value : other;
    }
    return value;
}
