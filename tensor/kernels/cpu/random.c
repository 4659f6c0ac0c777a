/* Random bits from a counter: Philox4x32-10 (Salmon et al. 2011), the same words as random.py makes
   with NumPy.

   Word c of row r is word c mod 4 of the counter (c / 4, step, module, sample + r) under a 64-bit
   seed. 32 counters go side by side. A word has 64 bits of its own, so that a product of two words
   is where the next round wants it. */

#include "kernels.h"

enum { LANES = 32 };
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "of two words, the first is the low one");

static inline uint64_t low(uint64_t x) { return (uint32_t)x; }

void random_words(struct key key, size start, size count, uint32_t *out) {
    for (size done = 0; done < count; done += 4 * LANES) {
        uint64_t c[4][LANES], pairs[2 * LANES], k0 = key.seed[0], k1 = key.seed[1];
        for (int i = 0; i < LANES; i++) {
            c[0][i] = low((uint64_t)(start + done) / 4 + i);
            c[1][i] = key.step;
            c[2][i] = key.module;
            c[3][i] = key.sample;
        }
        for (int round = 0; round < 10; round++) {
#pragma omp simd
            for (int i = 0; i < LANES; i++) {
                uint64_t p0 = c[0][i] * 0xD2511F53u, p1 = c[2][i] * 0xCD9E8D57u;
                c[0][i] = p1 >> 32 ^ c[1][i] ^ k0;
                c[1][i] = low(p1);
                c[2][i] = p0 >> 32 ^ c[3][i] ^ k1;
                c[3][i] = low(p0);
            }
            k0 = low(k0 + 0x9E3779B9u);
            k1 = low(k1 + 0xBB67AE85u);
        }
        for (int i = 0; i < LANES; i++) {
            pairs[2 * i] = c[0][i] | c[1][i] << 32;
            pairs[2 * i + 1] = c[2][i] | c[3][i] << 32;
        }
        memcpy(out + done, pairs, sizeof(uint32_t) * smaller(4 * LANES, count - done));
    }
}

struct bits_job {
    uint32_t *out;
    size rows, columns, tiles;
    struct key key;
};

enum { TILE = 4096 };  /* words of a row in an item */

static void some_bits(size item, void *data) {
    struct bits_job *job = data;
    size row = item / job->tiles, start = item % job->tiles * TILE;
    struct key key = job->key;
    key.sample += (uint32_t)row;
    random_words(key, start, smaller(TILE, job->columns - start),
                 job->out + row * job->columns + start);
}

/* out: (rows, columns) of uint32;   sample: of the first row */
KERNEL random_bits(array out, size rows, size columns, size seed, size step, size module,
                   size sample, size high_seed) {
    struct key key = {(uint32_t)step, (uint32_t)module, (uint32_t)sample,
                      {(uint32_t)seed, (uint32_t)high_seed}};
    struct bits_job job = {data_of(out), rows, columns, (columns + TILE - 1) / TILE, key};
    parallel(rows * job.tiles, 8.0 * rows * columns, some_bits, &job);
    return 0;
}
