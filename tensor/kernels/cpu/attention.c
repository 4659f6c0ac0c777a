/* Attention by blocks of queries: memory linear in the numbers of queries and keys. What lies after
   the diagonal is not computed where attention is causal.

       y = softmax(scale q k^T) v,   q (B, H, T, D),   k, v (B, H, S, D),   for each head by itself
       Dao et al. 2022, algorithm 1

   A query sees the keys that the mask allows. Causal: query t sees the keys up to t + S - T. A
   query that sees no key gives 0. Dropout leaves out weights after the softmax.

   A block of queries meets the keys up to its last one. Kept for backward: of each row of scores s
   the maximum m and the sum of e^(s - m). The weights p are made again from them, and the dropout r
   (0 or 1 / (1 - rate)) from its key:

       dv = (p r)^T dy,   dp = r (dy v^T),   ds = p (dp - rowsum(p dp)) scale,   dq = ds k,
       dk = ds^T q

   rowsum(p dp) = rowsum(dy y) on paper, but not in float32: a token that sees itself alone would
   get a gradient.

   An item is one head of one batch row; it copies what it reads of k, v, q, dy into rows padded to
   whole vectors. */

#include "kernels.h"

#if defined(__AVX512F__)
enum { WIDTH = 16, MOST = 4 };
#elif defined(__AVX__)
enum { WIDTH = 8, MOST = 2 };
#else
enum { WIDTH = 4, MOST = 2 };
#endif
enum { BLOCK = 32 };  /* queries at a time */
typedef float vector __attribute__((vector_size(4 * WIDTH)));

/* Without this the compiler loads a value anew for each multiplication: a third slower. */
#if defined(__AVX__)
#define KEEP_IN_REGISTER(v) __asm__("" : "+v"(v))
#else
#define KEEP_IN_REGISTER(v) (void)0
#endif

static inline vector load(const float *p) { vector v; memcpy(&v, p, sizeof v); return v; }
static inline void store(float *p, vector v) { memcpy(p, &v, sizeof v); }
static inline size padded(size n) { return (n + WIDTH - 1) / WIDTH * WIDTH; }
/* Never a power of two: rows 1, 2 or 4 KB apart fall on each other in a cache. */
static inline size stride_of(size T) { return padded(T) + WIDTH; }

/* -- products of small matrices -------------------------------------------------------------------

   c[i, j] (+)= sum over k of a[i, k] b[k, j], where a[i, k] lies at a + i * ai + k * ak, rows of b
   and c are contiguous, and there are whole vectors of columns. A tile of 4 rows and up to 4
   vectors stays in registers. */

struct product {
    const float *a, *b;
    float *c;
    size ai, ak, ldb, ldc, rows, columns, depth;
    int add;
};

static inline __attribute__((always_inline)) void tile(const struct product *p, size i, size j,
                                                       const int rows, const int vectors) {
    vector sum[4][4];
    float *c = p->c + i * p->ldc + j;
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int n = 0; n < vectors; n++)
            sum[r][n] = p->add ? load(c + r * p->ldc + n * WIDTH) : (vector){0};
    const float *a = p->a + i * p->ai, *b = p->b + j;
    for (size k = 0; k < p->depth; k++, a += p->ak, b += p->ldb) {
        vector row[4];
#pragma GCC unroll 4
        for (int n = 0; n < vectors; n++) {
            row[n] = load(b + n * WIDTH);
            KEEP_IN_REGISTER(row[n]);
        }
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
            for (int n = 0; n < vectors; n++) sum[r][n] += a[r * p->ai] * row[n];
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int n = 0; n < vectors; n++) store(c + r * p->ldc + n * WIDTH, sum[r][n]);
}

static inline __attribute__((always_inline)) void column_of_tiles(const struct product *p, size j,
                                                                  const int vectors) {
    size i = 0;
    for (; i + 4 <= p->rows; i += 4) tile(p, i, j, 4, vectors);
    for (; i < p->rows; i++) tile(p, i, j, 1, vectors);
}

static void multiply(struct product p) {
    size j = 0;
    if (MOST == 4) for (; j + 4 * WIDTH <= p.columns; j += 4 * WIDTH) column_of_tiles(&p, j, 4);
    for (; j + 2 * WIDTH <= p.columns; j += 2 * WIDTH) column_of_tiles(&p, j, 2);
    for (; j < p.columns; j += WIDTH) column_of_tiles(&p, j, 1);
}

/* -- one head ---------------------------------------------------------------------------------- */

/* An array (B, H, T, D) of any strides; the D numbers of a row lie side by side. */
struct heads { float *first; size batch, head, row; };

/* Bools (B, H, T, S), 0 where a query must not look. A stride may be 0. */
struct mask { const uint8_t *first; size batch, head, row, column; };

/* Weight c of sample b is kept where word c of the key's sample b is at least `threshold`. */
struct dropout { size threshold; float factor; struct key key; };

struct attention_job {
    struct heads q, k, v, y, dy, dq, dk, dv;
    float *most, *total;     /* (B, H, T) */
    size B, H, T, S, D;
    float scale;
    int causal;
    struct mask mask;        /* first is NULL: all may be seen */
    struct dropout dropout;  /* threshold is 0: none */
    /* set when a result is not: the reference decides where 0 meets infinity */
    int not_finite;
};

static inline float *head_of(const struct attention_job *job, struct heads array, size item) {
    return array.first + item / job->H * array.batch + item % job->H * array.head;
}

/* Memory that starts on a vector's boundary: a load across two cache lines costs two. */
static float *aligned_memory(size n) {
    return aligned_alloc(sizeof(vector), padded(n) * sizeof(float));
}

/* Ask for a row before it is needed: one head's part of a row is too short, and the next too far,
   for the processor to guess. */
enum { AHEAD = 8 };
static inline void fetch_row(const float *row, size D) {
    for (size d = 0; d < D; d += 16) __builtin_prefetch(row + d);
}

/* (T, padded D) from rows that lie `step` apart */
static void copy_rows(const float *from, size step, float *to, size T, size D) {
    size P = padded(D);
    for (size t = 0; t < T; t++) {
        fetch_row(from + (t + AHEAD) * step, D);
        for (size d = 0; d < D; d++) to[t * P + d] = from[t * step + d];
        for (size d = D; d < P; d++) to[t * P + d] = 0;
    }
}

/* The way back; returns NaN when a value is not finite, else 0. */
static float copy_back(const float *from, float *to, size step, size T, size D) {
    float zero = 0;
    for (size t = 0; t < T; t++)
#pragma omp simd reduction(+ : zero)
        for (size d = 0; d < D; d++) {
            to[t * step + d] = from[t * padded(D) + d];
            zero += from[t * padded(D) + d] * 0.0f;
        }
    return zero;
}

/* (D, padded T), rows `stride_of(T)` apart, from T rows that lie `step` apart. A vector's length of
   rows at a time: a whole column of them would not stay in the cache. */
static void turn_rows(const float *restrict from, size step, float *restrict to, size T, size D) {
    size S = stride_of(T), whole = T / WIDTH * WIDTH;
    for (size t = 0; t < whole; t += WIDTH)
        for (size d = 0; d < D; d++)
            for (size i = t; i < t + WIDTH; i++) to[d * S + i] = from[i * step + d];
    for (size d = 0; d < D; d++) {
        for (size t = whole; t < T; t++) to[d * S + t] = from[t * step + d];
        for (size t = T; t < padded(T); t++) to[d * S + t] = 0;
    }
}

/* The number of keys that come before and with query t. */
static inline size keys_of(const struct attention_job *job, size t) {
    return job->causal ? larger(0, t + 1 + job->S - job->T) : job->S;
}

/* row[i] = -inf where the mask hides key i from query t. */
static void hide(const struct attention_job *job, size item, size t, float *restrict row,
                 size keys) {
    struct mask mask = job->mask;
    const uint8_t *allowed = mask.first + item / job->H * mask.batch + item % job->H * mask.head +
                             t * mask.row;
    for (size i = 0; i < keys; i++) row[i] = allowed[i * mask.column] ? row[i] : -INFINITY;
}

/* Scores s = scale q k^T of queries start to stop against the keys they may see: (stop - start, W),
   -inf from there to the end of a whole vector. Returns how many keys that are. A score that is not
   finite is told: -inf from an overflow would hide its key. */
static size scores(struct attention_job *job, size item, const float *q, size step,
                   const float *turned_k, float *s, size start, size stop) {
    size W = stride_of(job->S), seen = keys_of(job, stop - 1), keys = padded(seen);
    vector zeros = {0};  /* NaN, once a score is not finite */
    multiply((struct product){q + start * step, turned_k, s, step, 1, W, W, stop - start, keys,
                              job->D, 0});
    for (size t = start; t < stop; t++) {
        float *restrict row = s + (t - start) * W;
        size last = keys_of(job, t);
        for (size i = 0; i < keys; i += WIDTH) {
            vector score = load(row + i) * job->scale;
            zeros += score * 0.0f;
            store(row + i, score);
        }
        for (size i = last; i < keys; i++) row[i] = -INFINITY;
        if (job->mask.first) hide(job, item, t, row, last);
    }
    for (int i = 0; i < WIDTH; i++) if (zeros[i] != 0) tell(&job->not_finite);
    return seen;
}

/* Random words for the first weights of query t.   memory: (keys + 3) */
static const uint32_t *words_of(const struct attention_job *job, size item, size t, size keys,
                                void *memory) {
    struct key key = job->dropout.key;
    size first = (item % job->H * job->T + t) * job->S, start = first / 4 * 4, skip = first - start;
    key.sample += (uint32_t)(item / job->H);
    random_words(key, start, skip + keys, memory);
    return (uint32_t *)memory + skip;
}

/* row[i] *= 0 or 1 / (1 - rate) */
static void drop(const struct attention_job *job, float *restrict row, size keys,
                 const uint32_t *restrict words) {
    uint32_t threshold = (uint32_t)job->dropout.threshold;
    float factor = job->dropout.factor;
    for (size i = 0; i < keys; i++) row[i] *= words[i] >= threshold ? factor : 0;
}

static void forward(size item, void *data) {
    struct attention_job *job = data;
    size T = job->T, S = job->S, D = job->D, P = padded(D), W = stride_of(S);
    const float *q = head_of(job, job->q, item);
    float *y = head_of(job, job->y, item);
    float *greatest = job->most + item * T, *totals = job->total + item * T;
    float *memory = aligned_memory(S * P + D * W + BLOCK * (W + P) + W);
    float *values = memory, *turned_k = values + S * P, *s = turned_k + D * W;
    float *out = s + BLOCK * W, *words = out + BLOCK * P;
    float zero = 0;  /* NaN, once a result is not finite */
    copy_rows(head_of(job, job->v, item), job->v.row, values, S, D);
    turn_rows(head_of(job, job->k, item), job->k.row, turned_k, S, D);
    for (size start = 0; start < T; start += BLOCK) {
        size stop = smaller(start + BLOCK, T);
        size seen = scores(job, item, q, job->q.row, turned_k, s, start, stop), keys = padded(seen);
        for (size t = start; t < stop; t++) {
            float *restrict row = s + (t - start) * W, most = -INFINITY, sum = 0;
#pragma omp simd reduction(max : most)
            for (size i = 0; i < keys; i++) most = row[i] > most ? row[i] : most;
            if (most == -INFINITY) most = 0;  /* nothing may be seen: all weights are 0 */
#pragma omp simd reduction(+ : sum)
            for (size i = 0; i < keys; i++) {
                float e = exponential(row[i] - most);
                row[i] = e;
                sum += e;
            }
            greatest[t] = most;
            totals[t] = sum == 0 ? 1 : sum;
            if (job->dropout.threshold) drop(job, row, seen, words_of(job, item, t, seen, words));
        }
        multiply((struct product){s, values, out, W, 1, P, P, stop - start, P, seen, 0});
        for (size t = start; t < stop; t++) {
            float *restrict row = out + (t - start) * P, total = totals[t];
            for (size d = 0; d < D; d++) row[d] /= total;
        }
        zero += copy_back(out, y + start * job->y.row, job->y.row, stop - start, D);
    }
    if (zero != 0) tell(&job->not_finite);
    free(memory);
}

static void backward(size item, void *data) {
    struct attention_job *job = data;
    size T = job->T, S = job->S, D = job->D, P = padded(D), W = stride_of(S);
    const float *greatest = job->most + item * T, *totals = job->total + item * T;
    float *memory = aligned_memory(3 * (T + S) * P + 2 * D * W + (2 * BLOCK + 1) * W);
    float *q = memory, *dy = q + T * P, *dq = dy + T * P;
    float *k = dq + T * P, *dk = k + S * P, *dv = dk + S * P;
    float *turned_k = dv + S * P, *turned_v = turned_k + D * W, *p = turned_v + D * W;
    float *ds = p + BLOCK * W, *words = ds + BLOCK * W;
    copy_rows(head_of(job, job->q, item), job->q.row, q, T, D);
    copy_rows(head_of(job, job->k, item), job->k.row, k, S, D);
    copy_rows(head_of(job, job->dy, item), job->dy.row, dy, T, D);
    turn_rows(k, P, turned_k, S, D);
    turn_rows(head_of(job, job->v, item), job->v.row, turned_v, S, D);
    memset(dk, 0, sizeof(float) * 2 * S * P);  /* dv too */
    for (size start = 0; start < T; start += BLOCK) {
        size stop = smaller(start + BLOCK, T), count = stop - start;
        size seen = scores(job, item, q, P, turned_k, p, start, stop), keys = padded(seen);
        /* dy v^T */
        multiply((struct product){dy + start * P, turned_v, ds, P, 1, W, W, count, keys, D, 0});
        for (size t = start; t < stop; t++) {
            float *restrict row = p + (t - start) * W, *restrict drow = ds + (t - start) * W;
            float most = greatest[t], share = 1.0f / totals[t], dot = 0, scale = job->scale;
            const uint32_t *drawn = NULL;  /* of dropout */
            if (job->dropout.threshold) drawn = words_of(job, item, t, seen, words);
            if (drawn) drop(job, drow, seen, drawn);
#pragma omp simd reduction(+ : dot)
            for (size i = 0; i < keys; i++) {
                row[i] = exponential(row[i] - most) * share;
                dot += row[i] * drow[i];
            }
#pragma omp simd
            for (size i = 0; i < keys; i++) drow[i] = row[i] * (drow[i] - dot) * scale;
            if (drawn) drop(job, row, seen, drawn);
        }
        multiply((struct product){ds, k, dq + start * P, W, 1, P, P, count, P, seen, 0});
        multiply((struct product){p, dy + start * P, dv, 1, W, P, P, seen, P, count, 1});
        multiply((struct product){ds, q + start * P, dk, 1, W, P, P, seen, P, count, 1});
    }
    float zero = copy_back(dq, head_of(job, job->dq, item), job->dq.row, T, D) +
                 copy_back(dk, head_of(job, job->dk, item), job->dk.row, S, D) +
                 copy_back(dv, head_of(job, job->dv, item), job->dv.row, S, D);
    if (zero != 0) tell(&job->not_finite);
    free(memory);
}

/* -- for decoder.c and for Python -------------------------------------------------------------- */

/* Packed: qkv (B, T, 3, H, D), y (B, T, H, D), kept (2, B, H, T), always causal. Returns 1 when
   something was not finite: then a query may have seen what lies after it. */
int packed_attention(float *qkv, float *y, float *kept, size B, size T, size H, size D,
                     float scale) {
    size C = H * D;
    struct heads q = {qkv, 3 * T * C, D, 3 * C}, k = q, v = q;
    k.first += C, v.first += 2 * C;
    struct attention_job job = {.q = q, .k = k, .v = v, .y = {y, T * C, D, C},
                                .most = kept, .total = kept + B * H * T, .B = B, .H = H, .T = T,
                                .S = T, .D = D, .scale = scale, .causal = 1};
    parallel(B * H, 2.0 * B * H * T * T, forward, &job);
    return job.not_finite;
}

static struct heads heads_of(array a) {
    size *steps = strides_of(a), bytes = sizeof(float);
    return (struct heads){floats(a), steps[0] / bytes, steps[1] / bytes, steps[2] / bytes};
}

/* options: causal, whether the mask counts, and of dropout: threshold, seed (low, high), step,
   module, sample. */
enum { CAUSAL, MASKED, THRESHOLD, SEED, HIGH_SEED, STEP, MODULE, SAMPLE };

static struct attention_job job_of(array q, array k, array v, array mask, array kept, array options,
                                   real scale, real factor) {
    size *queries = shape_of(q), *m = strides_of(mask);
    size B = queries[0], H = queries[1], T = queries[2];
    const int64_t *option = integers(options);
    struct key key = {(uint32_t)option[STEP], (uint32_t)option[MODULE], (uint32_t)option[SAMPLE],
                      {(uint32_t)option[SEED], (uint32_t)option[HIGH_SEED]}};
    struct attention_job job = {.q = heads_of(q), .k = heads_of(k), .v = heads_of(v),
                                .most = floats(kept), .total = floats(kept) + B * H * T, .B = B,
                                .H = H, .T = T, .S = shape_of(k)[2], .D = queries[3],
                                .scale = (float)scale, .causal = (int)option[CAUSAL],
                                .dropout = {option[THRESHOLD], (float)factor, key}};
    if (option[MASKED]) job.mask = (struct mask){data_of(mask), m[0], m[1], m[2], m[3]};
    return job;
}

/* q, y: (B, H, T, D)   k, v: (B, H, S, D)   mask: (B, H, T, S) of bools   kept: (2, B, H, T)
   Returns 1 when something was not finite. */
KERNEL attention_forward(array q, array k, array v, array mask, array y, array kept, array options,
                         real scale, real factor) {
    struct attention_job job = job_of(q, k, v, mask, kept, options, scale, factor);
    job.y = heads_of(y);
    parallel(job.B * job.H, 2.0 * job.B * job.H * job.T * job.S, forward, &job);
    return job.not_finite;
}

/* dq, dk, dv have the shapes of q, k, v. Returns 1 when something in them is not finite. */
KERNEL attention_backward(array q, array k, array v, array mask, array kept, array dy, array dq,
                          array dk, array dv, array options, real scale, real factor) {
    struct attention_job job = job_of(q, k, v, mask, kept, options, scale, factor);
    job.dy = heads_of(dy), job.dq = heads_of(dq), job.dk = heads_of(dk), job.dv = heads_of(dv);
    parallel(job.B * job.H, 5.0 * job.B * job.H * job.T * job.S, backward, &job);
    return job.not_finite;
}
