/* Random bits from a counter: Philox4x32-10 (Salmon et al. 2011), the same words as random.py makes
   with NumPy.

   Word c of row r is word c mod 4 of the counter (c / 4, step, module, sample + r) under a 64-bit
   seed. 16 counters go side by side. */

#include "kernels.h"

enum { LANES = 16 };

void random_words(struct key key, size start, size count, uint32_t *out) {
    for (size done = 0; done < count; done += 4 * LANES) {
        uint32_t c[4][LANES], k0 = key.seed[0], k1 = key.seed[1], words[4 * LANES];
        for (int i = 0; i < LANES; i++) {
            c[0][i] = (uint32_t)((start + done) / 4 + i);
            c[1][i] = key.step;
            c[2][i] = key.module;
            c[3][i] = key.sample;
        }
        for (int round = 0; round < 10; round++) {
#pragma omp simd
            for (int i = 0; i < LANES; i++) {
                uint64_t p0 = (uint64_t)c[0][i] * 0xD2511F53u, p1 = (uint64_t)c[2][i] * 0xCD9E8D57u;
                uint32_t c1 = c[1][i], c3 = c[3][i];
                c[0][i] = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
                c[1][i] = (uint32_t)p1;
                c[2][i] = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
                c[3][i] = (uint32_t)p0;
            }
            k0 += 0x9E3779B9u;
            k1 += 0xBB67AE85u;
        }
        for (int i = 0; i < LANES; i++)
            for (int word = 0; word < 4; word++) words[4 * i + word] = c[word][i];
        memcpy(out + done, words, sizeof(uint32_t) * smaller(4 * LANES, count - done));
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
