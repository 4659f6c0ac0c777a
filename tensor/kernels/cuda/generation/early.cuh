// A kernel may start while the kernel before it still runs: it asks for what does not depend on
// that kernel, and then waits. So the time of a launch, and of the first reads, is hidden.
// CUDA C++ Programming Guide, section "Programmatic Dependent Launch"
//
// Every kernel of such a chain waits, so no kernel writes what an earlier one still reads.

__device__ inline void let_the_next_one_start() {
#ifdef __CUDA_ARCH__
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

__device__ inline void wait_for_the_one_before() {
#ifdef __CUDA_ARCH__
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// 16 bytes that no kernel of the chain writes. The compiler leaves the read where it stands.
template <class P = Pack, class E> __device__ inline P load_early(const E *p) {
#ifdef __CUDA_ARCH__
    static_assert(sizeof(P) == 16, "");
    uint4 bits;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(bits.x), "=r"(bits.y), "=r"(bits.z), "=r"(bits.w)
                 : "l"(p));
    return *reinterpret_cast<P *>(&bits);
#else
    return *reinterpret_cast<const P *>(p);
#endif
}

// The same for a single element.
template <class E> __device__ inline E load_one_early(const E *p) {
#ifdef __CUDA_ARCH__
    if constexpr (sizeof(E) == 4) {
        unsigned bits;
        asm volatile("ld.global.nc.u32 %0, [%1];" : "=r"(bits) : "l"(p));
        return *reinterpret_cast<E *>(&bits);
    } else {
        unsigned short bits;
        asm volatile("ld.global.nc.u16 %0, [%1];" : "=h"(bits) : "l"(p));
        return *reinterpret_cast<E *>(&bits);
    }
#else
    return *p;
#endif
}

// The line with this element comes into the L2 cache. Nothing waits for it.
__device__ inline void hint(const void *p) {
#ifdef __CUDA_ARCH__
    asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
#endif
}
