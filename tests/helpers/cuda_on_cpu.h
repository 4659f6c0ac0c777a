// CUDA on the CPU: each thread of a block is a fiber, which runs until it waits for others. So a
// kernel that forgets to wait reads what is not there yet: shared memory begins as NaN.

#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <tuple>
#include <utility>
#include <vector>
using std::exp, std::log, std::max, std::min;

#define __device__
#define __global__
#define __restrict__
#define __shared__ static
#define __launch_bounds__(...)

struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct dim3 { unsigned x, y, z; };

template <class X> X __ldg(const X *at) { return *at; }
inline float __fdividef(float a, float b) { return a / b; }
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned which) {
    uint64_t bytes = (uint64_t)b << 32 | a;
    unsigned found = 0;
    for (int i = 0; i < 4; i++) found |= (bytes >> (which >> 4 * i & 7) * 8 & 0xff) << 8 * i;
    return found;
}

// -- 16 bits

inline float float_of(unsigned bits) { float x; std::memcpy(&x, &bits, 4); return x; }
inline unsigned bits_of(float x) { unsigned bits; std::memcpy(&bits, &x, 4); return bits; }

struct __nv_bfloat16 {
    uint16_t bits;
    __nv_bfloat16() = default;
    __nv_bfloat16(float x) {
        unsigned u = bits_of(x);
        bits = std::isnan(x) ? 0x7fff : (u + 0x7fff + (u >> 16 & 1)) >> 16;
    }
    operator float() const { return float_of((unsigned)bits << 16); }
};
using __half = _Float16;

// -- threads

struct Fiber {
    void *stack_pointer;
    std::vector<char> stack;
    dim3 index;
    unsigned number, lane, warp;
    bool done;
    std::vector<std::function<void()>> copies;  // on their way
};

struct Barrier { unsigned members, arrived, turn; };

inline std::vector<Fiber> fibers;
inline std::vector<Barrier> barriers;  // of each warp, and last that of the block
inline Fiber *self;
inline void *scheduler;
inline std::function<void()> body;
inline dim3 blockIdx, blockDim, gridDim;
#define threadIdx (self->index)
alignas(16) inline unsigned char slots[1024][64];  // what each lane shows the others of its warp

extern "C" void switch_stacks(void **from, void *to);
asm(".text\n.weak switch_stacks\nswitch_stacks:\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp, (%rdi)\nmovq %rsi, %rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n");

inline void pause_fiber() { switch_stacks(&self->stack_pointer, scheduler); }

inline void start_fiber() {
    body();
    self->done = true;
    for (;;) pause_fiber();
}

inline void wait_at(Barrier &barrier) {
    unsigned turn = barrier.turn;
    if (++barrier.arrived == barrier.members) barrier.arrived = 0, barrier.turn++;
    while (barrier.turn == turn) pause_fiber();
}

inline void __syncthreads() { wait_at(barriers.back()); }
inline void __syncwarp() { wait_at(barriers[self->warp]); }

inline int __syncthreads_count(int yes) {
    static int count;
    count += yes != 0;
    __syncthreads();
    int result = count;
    __syncthreads();
    count = 0;
    __syncthreads();
    return result;
}

inline int atomicAdd(int *at, int value) {
    int before = *at;
    *at += value;
    return before;
}

inline int __syncthreads_or(int yes) { return __syncthreads_count(yes) != 0; }

template <class X> void show_warp(const X &x) {
    static_assert(sizeof(X) <= 64);
    std::memcpy(slots[self->number], &x, sizeof(X));
    __syncwarp();
}
template <class X> X shown(unsigned lane) {
    X x;
    std::memcpy(&x, slots[self->warp * 32 + lane], sizeof(X));
    return x;
}
template <class X> X __shfl_xor_sync(unsigned, X x, int step) {
    show_warp(x);
    X other = shown<X>(self->lane ^ step);
    __syncwarp();
    return other;
}

template <class X> X __shfl_sync(unsigned, X x, int lane) {
    show_warp(x);
    X other = shown<X>(lane);
    __syncwarp();
    return other;
}

inline std::vector<std::pair<void *, size_t>> shared_memories;

inline void run_block() {
    unsigned threads = blockDim.x * blockDim.y;
    for (auto [start, size] : shared_memories) std::memset(start, 0xff, size);
    fibers.resize(threads);
    barriers.assign((threads + 31) / 32 + 1, {32, 0, 0});
    barriers.back().members = threads;
    if (threads % 32) barriers[threads / 32].members = threads % 32;
    for (unsigned i = 0; i < threads; i++) {
        Fiber &f = fibers[i];
        f.stack.resize(128 * 1024);
        f.index = {i % blockDim.x, i / blockDim.x, 0};
        f.number = i, f.lane = i % 32, f.warp = i / 32, f.done = false;
        f.copies.clear();
        uintptr_t top = (uintptr_t)(f.stack.data() + f.stack.size()) / 16 * 16;
        void **frame = (void **)(top - 16);
        *frame = (void *)start_fiber;
        f.stack_pointer = frame - 6;
    }
    for (unsigned done = 0; done < threads;) {
        done = 0;
        unsigned waiting = 0;
        for (Fiber &f : fibers) {
            if (f.done) { done++; continue; }
            self = &f;
            switch_stacks(&scheduler, f.stack_pointer);
            waiting += !f.done;
        }
        static unsigned long long rounds;
        if (waiting && done && ++rounds > 100000000) std::fputs("a block hangs\n", stderr), abort();
    }
}

template <class... A, size_t... I>
void call(void (*kernel)(A...), void **p, std::index_sequence<I...>) {
    kernel(*(std::remove_const_t<A> *)p[I]...);
}

template <class... A> void launch(void (*kernel)(A...), void **p, const unsigned *sizes) {
    gridDim = {sizes[0], sizes[1], sizes[2]};
    blockDim = {sizes[3], sizes[4], sizes[5]};
    body = [&] { call(kernel, p, std::index_sequence_for<A...>{}); };
    for (unsigned z = 0; z < gridDim.z; z++)
        for (unsigned y = 0; y < gridDim.y; y++)
            for (unsigned x = 0; x < gridDim.x; x++) {
                blockIdx = {x, y, z};
                run_block();
            }
}
