/* Self-attention by blocks of queries: memory linear in T, and what lies after the diagonal is not
   computed where it is causal.

       y = softmax(scale q k^T, if causal no key after its query) v,   for B H heads of (T, D)
       Dao et al. 2022, algorithm 1

   The heads are packed, qkv (B, T, 3, H, D) -> y (B, T, H, D), or each q, k, v -> y is (B H, T, D):
   the same code, other strides. A block of queries meets the keys up to its last one. Kept for
   backward: of each row of scores s the maximum m and the sum of e^(s - m). The weights p are made
   again from them:

       dv = p^T dy,   dp = dy v^T,   ds = p (dp - rowsum(p dp)) scale,   dq = ds k,   dk = ds^T q

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

struct attention_job {
    const float *q, *k, *v, *dy;
    float *y, *most, *total, *dq, *dk, *dv;
    size T, H, D;             /* H: heads beside each other in a row */
    size step, out_step;      /* from one row of q, k, v to the next; of y */
    float scale;
    int causal;
    /* set when a result is not: the reference decides where 0 meets infinity */
    int not_finite;
};

/* Where the rows of a head start, in arrays whose rows are `step` apart. */
static inline size head_start(const struct attention_job *job, size item, size step) {
    return item / job->H * job->T * step + item % job->H * job->D;
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

/* (D, padded T), rows `stride_of(T)` apart, from rows (T, padded D) */
static void turn_rows(const float *from, float *to, size T, size D) {
    size P = padded(D), S = stride_of(T);
    for (size d = 0; d < D; d++) {
        for (size t = 0; t < T; t++) to[d * S + t] = from[t * P + d];
        for (size t = T; t < padded(T); t++) to[d * S + t] = 0;
    }
}

/* Scores s = scale q k^T of queries start to stop against the keys they may see: (stop - start, S),
   -inf from there to the end of a whole vector. Returns how many keys that are. */
static size scores(const struct attention_job *job, const float *q, size step,
                   const float *turned_k, float *s, size start, size stop) {
    size S = stride_of(job->T), seen = job->causal ? stop : job->T, keys = padded(seen);
    multiply((struct product){q + start * step, turned_k, s, step, 1, S, S, stop - start, keys,
                              job->D, 0});
    for (size t = start; t < stop; t++) {
        float *restrict row = s + (t - start) * S, scale = job->scale;
        size last = job->causal ? t + 1 : job->T;
        for (size i = 0; i < last; i++) row[i] *= scale;
        for (size i = last; i < keys; i++) row[i] = -INFINITY;
    }
    return seen;
}

static void forward(size item, void *data) {
    struct attention_job *job = data;
    size T = job->T, D = job->D, step = job->step, out_step = job->out_step, P = padded(D);
    size S = stride_of(T), here = head_start(job, item, step);
    const float *q = job->q + here, *k = job->k + here, *v = job->v + here;
    float *y = job->y + head_start(job, item, out_step), *greatest = job->most + item * T;
    float *totals = job->total + item * T;
    float *memory = aligned_memory(2 * T * P + D * S + BLOCK * (S + P));
    float *rows = memory, *values = rows + T * P, *turned_k = values + T * P, *s = turned_k + D * S;
    float *out = s + BLOCK * S;
    float zero = 0;  /* NaN, once a result is not finite */
    copy_rows(k, step, rows, T, D);
    copy_rows(v, step, values, T, D);
    turn_rows(rows, turned_k, T, D);
    for (size start = 0; start < T; start += BLOCK) {
        size stop = smaller(start + BLOCK, T);
        size seen = scores(job, q, step, turned_k, s, start, stop), keys = padded(seen);
        for (size t = start; t < stop; t++) {
            float *restrict row = s + (t - start) * S, most = -INFINITY, sum = 0;
#pragma omp simd reduction(max : most)
            for (size i = 0; i < keys; i++) most = row[i] > most ? row[i] : most;
#pragma omp simd reduction(+ : sum)
            for (size i = 0; i < keys; i++) {
                float e = exponential(row[i] - most);
                row[i] = e;
                sum += e;
            }
            greatest[t] = most;
            totals[t] = sum;
        }
        multiply((struct product){s, values, out, S, 1, P, P, stop - start, P, seen, 0});
        for (size t = start; t < stop; t++)
#pragma omp simd reduction(+ : zero)
            for (size d = 0; d < D; d++) {
                float value = out[(t - start) * P + d] / totals[t];
                y[t * out_step + d] = value;
                zero += value * 0.0f;
            }
    }
    if (zero != 0) tell(&job->not_finite);
    free(memory);
}

static void backward(size item, void *data) {
    struct attention_job *job = data;
    size T = job->T, D = job->D, step = job->step, out_step = job->out_step, P = padded(D);
    size S = stride_of(T);
    size here = head_start(job, item, step), out_here = head_start(job, item, out_step);
    const float *greatest = job->most + item * T, *totals = job->total + item * T;
    float *memory = aligned_memory(7 * T * P + 2 * D * S + BLOCK * 2 * S);
    float *q = memory, *k = q + T * P, *v = k + T * P, *dy = v + T * P, *dq = dy + T * P;
    float *dk = dq + T * P, *dv = dk + T * P;
    float *turned_k = dv + T * P, *turned_v = turned_k + D * S, *p = turned_v + D * S;
    float *ds = p + BLOCK * S;
    copy_rows(job->q + here, step, q, T, D);
    copy_rows(job->k + here, step, k, T, D);
    copy_rows(job->v + here, step, v, T, D);
    copy_rows(job->dy + out_here, out_step, dy, T, D);
    turn_rows(k, turned_k, T, D);
    turn_rows(v, turned_v, T, D);
    memset(dk, 0, sizeof(float) * 2 * T * P);  /* dv too */
    for (size start = 0; start < T; start += BLOCK) {
        size stop = smaller(start + BLOCK, T), count = stop - start;
        size seen = scores(job, q, P, turned_k, p, start, stop), keys = padded(seen);
        /* dy v^T */
        multiply((struct product){dy + start * P, turned_v, ds, P, 1, S, S, count, keys, D, 0});
        for (size t = start; t < stop; t++) {
            float *restrict row = p + (t - start) * S, *restrict drow = ds + (t - start) * S;
            float most = greatest[t], share = 1.0f / totals[t], dot = 0, scale = job->scale;
#pragma omp simd reduction(+ : dot)
            for (size i = 0; i < keys; i++) {
                row[i] = exponential(row[i] - most) * share;
                dot += row[i] * drow[i];
            }
#pragma omp simd
            for (size i = 0; i < keys; i++) drow[i] = row[i] * (drow[i] - dot) * scale;
        }
        multiply((struct product){ds, k, dq + start * P, S, 1, P, P, count, P, seen, 0});
        multiply((struct product){p, dy + start * P, dv, 1, S, P, P, seen, P, count, 1});
        multiply((struct product){ds, q + start * P, dk, 1, S, P, P, seen, P, count, 1});
    }
    float zero = copy_back(dq, job->dq + here, step, T, D) +
                 copy_back(dk, job->dk + here, step, T, D) +
                 copy_back(dv, job->dv + here, step, T, D);
    if (zero != 0) tell(&job->not_finite);
    free(memory);
}

/* Packed: qkv (B, T, 3, H, D), y (B, T, H, D), kept (2, B, H, T), always causal. Returns 1 when
   something was not finite: then a query may have seen what lies after it. */
int packed_attention(const float *qkv, float *y, float *kept, size B, size T, size H, size D,
                     float scale) {
    struct attention_job job = {.q = qkv, .k = qkv + H * D, .v = qkv + 2 * H * D, .y = y,
                                .most = kept, .total = kept + B * H * T, .T = T, .H = H, .D = D,
                                .step = 3 * H * D, .out_step = H * D, .scale = scale, .causal = 1};
    parallel(B * H, 2.0 * B * H * T * T, forward, &job);
    return job.not_finite;
}

/* The job of N = B H heads: packed in qkv, which is given as each of q, k, v; or apart, and then H
   is 1. */
static struct attention_job job_of(array q, array k, array v, array kept, size N, size T, size H,
                                   size D, size packed, real scale, size causal) {
    size C = H * D, third = packed ? C : 0;
    return (struct attention_job){.q = floats(q), .k = floats(k) + third,
                                  .v = floats(v) + 2 * third, .most = floats(kept),
                                  .total = floats(kept) + N * T, .T = T, .H = H, .D = D,
                                  .step = packed ? 3 * C : C, .out_step = C, .scale = (float)scale,
                                  .causal = (int)causal};
}

/* y (B, T, H, D), kept (2, N, T). Returns 1 when something was not finite. */
KERNEL attention_forward(array q, array k, array v, array y, array kept, size N, size T, size H,
                         size D, size packed, real scale, size causal) {
    struct attention_job job = job_of(q, k, v, kept, N, T, H, D, packed, scale, causal);
    job.y = floats(y);
    parallel(N, 2.0 * N * T * T, forward, &job);
    return job.not_finite;
}

/* dq, dk, dv lie as q, k, v do. Returns 1 when something in them is not finite. */
KERNEL attention_backward(array q, array k, array v, array kept, array dy, array dq, array dk,
                          array dv, size N, size T, size H, size D, size packed, real scale,
                          size causal) {
    struct attention_job job = job_of(q, k, v, kept, N, T, H, D, packed, scale, causal);
    size third = packed ? H * D : 0;
    job.dy = floats(dy);
    job.dq = floats(dq), job.dk = floats(dk) + third, job.dv = floats(dv) + 2 * third;
    parallel(N, 5.0 * N * T * T, backward, &job);
    return job.not_finite;
}
