// Philox4x32-10: four random words for each counter of four words, under a 64-bit seed.
// Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"; tensor/random.py has it too.

__device__ inline uint4 philox(uint4 counter, uint2 seed) {
#pragma unroll
    for (int round = 0; round < 10; round++) {
        unsigned high0 = __umulhi(counter.x, 0xD2511F53u), low0 = counter.x * 0xD2511F53u;
        unsigned high1 = __umulhi(counter.z, 0xCD9E8D57u), low1 = counter.z * 0xCD9E8D57u;
        counter = {high1 ^ counter.y ^ seed.x, low1, high0 ^ counter.w ^ seed.y, low0};
        seed.x += 0x9E3779B9u;  // the golden ratio and sqrt(3) - 1, as fractions of 2^32
        seed.y += 0xBB67AE85u;
    }
    return counter;
}
