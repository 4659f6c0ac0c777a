// Philox4x32-10: four random words for each counter of four words, under a 64-bit seed.
// Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"; tensor/random.py has it too.

// What a random op's numbers depend on.   later: where the step lies in memory, or null. A kernel of
// a CUDA graph reads the step of each replay there.
struct Key {
    const unsigned *later;
    unsigned step, module, sample, seed_low, seed_high;

    // The words of counter `block` of a row.
    __device__ uint4 words(unsigned block, unsigned row) const;
};

__device__ inline uint4 philox(uint4 counter, uint2 seed) {
#pragma unroll
    for (int round = 0; round < 10; round++) {
        // 32 x 32 -> 64 bits
        unsigned long long x = 0xD2511F53ull * counter.x, z = 0xCD9E8D57ull * counter.z;
        unsigned y = (z >> 32) ^ counter.y ^ seed.x, w = (x >> 32) ^ counter.w ^ seed.y;
        counter = {y, (unsigned)z, w, (unsigned)x};
        seed.x += 0x9E3779B9u;  // the golden ratio and sqrt(3) - 1, as fractions of 2^32
        seed.y += 0xBB67AE85u;
    }
    return counter;
}

__device__ inline uint4 Key::words(unsigned block, unsigned row) const {
    unsigned now = later ? __ldg(later) : step;
    return philox({block, now, module, sample + row}, {seed_low, seed_high});
}

__device__ inline unsigned word(uint4 words, int i) {
    return i < 2 ? (i ? words.y : words.x) : (i == 2 ? words.z : words.w);
}
