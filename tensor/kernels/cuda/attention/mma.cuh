// What a warp tells the tensor cores of compute capability 8.0 or higher, for T of 16 bits.
// PTX ISA, sections "mma.m16n8k16", "ldmatrix" and "cp.async"
//
// A tensor core multiplies a 16 x 16 by a 16 x 8 matrix, and adds to 16 x 8 floats. The 32 lanes of
// a warp hold the matrices together, two neighbours of a row in a register. Lane l has, with
// r = l / 4 and c = 2 (l % 4):
//
//   16 x 16:  x[0] row r, columns c, c + 1    x[1] row r + 8    x[2], x[3] the same, columns + 8
//   16 x 8 (right operand): x[0] column r, rows c, c + 1    x[1] the same, rows + 8
//   16 x 8 (sums):  s[0], s[1] row r, columns c, c + 1    s[2], s[3] row r + 8

// 16 x 16 of the left operand, or two right operands side by side: x[0], x[1] and x[2], x[3]
struct Fragment {
    unsigned x[4];
};

__device__ inline unsigned address(const void *shared) {
    return (unsigned)__cvta_generic_to_shared(shared);
}

// Four 8 x 8 matrices in shared memory. Each lane gives one row of 16 bytes: lanes 0 - 7 those of
// x[0], and so on.
__device__ inline Fragment load_matrices(const T *row) {
    Fragment f;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(f.x[0]), "=r"(f.x[1]), "=r"(f.x[2]), "=r"(f.x[3])
                 : "r"(address(row))
                 : "memory");
    return f;
}

// The same, each matrix transposed.
__device__ inline Fragment load_transposed(const T *row) {
    Fragment f;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(f.x[0]), "=r"(f.x[1]), "=r"(f.x[2]), "=r"(f.x[3])
                 : "r"(address(row))
                 : "memory");
    return f;
}

template <class X> constexpr bool IS_HALF = false;
template <> constexpr bool IS_HALF<__half> = true;

// s += a b, b the right operand in two registers
__device__ inline void multiply_add(float (&s)[4], const Fragment &a, unsigned b0, unsigned b1) {
    if constexpr (IS_HALF<T>)
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
            "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(s[0]), "+f"(s[1]), "+f"(s[2]), "+f"(s[3])
            : "r"(a.x[0]), "r"(a.x[1]), "r"(a.x[2]), "r"(a.x[3]), "r"(b0), "r"(b1));
    else
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
            "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(s[0]), "+f"(s[1]), "+f"(s[2]), "+f"(s[3])
            : "r"(a.x[0]), "r"(a.x[1]), "r"(a.x[2]), "r"(a.x[3]), "r"(b0), "r"(b1));
}

// Two floats, rounded to T, in one register: the first in the lower half.
__device__ inline unsigned rounded(float first, float second) {
    unsigned both;
    if constexpr (IS_HALF<T>)
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(second), "f"(first));
    else
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(second), "f"(first));
    return both;
}

// 2^x, to 22 bits; numbers below 2^-126 become 0
__device__ inline float power_of_2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Copies BYTES (16 or 4) to shared memory. Where nothing is there, nothing is read, and zeros are
// written. The copy runs on its own until it is waited for.
template <int BYTES>
__device__ inline void start_copy(void *shared, const void *global, bool there) {
    int size = there ? BYTES : 0;
    if constexpr (BYTES == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                     ::"r"(address(shared)), "l"(global), "r"(size)
                     : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;"
                     ::"r"(address(shared)), "l"(global), "r"(size)
                     : "memory");
}

// Waits for the copies that this thread started. The others' need __syncthreads() as well.
__device__ inline void wait_for_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }
