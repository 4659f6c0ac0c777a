/* A whole decoder, forward only, on new tokens that look back at a cache: what generation does for
   every token.

       x = scale tokens[id] + positions[position]
       in each block:
       norm first:   x += attention(norm(x)) W + b,   x += activation(norm(x) W1 + b1) W2 + b2
       norm after:   x = norm(x + attention(x) W + b),   x = norm(x + activation(x W1 + b1) W2 + b2)
       logits = norm(x) head

   One call, since op by op Python takes longer between the ops of one small token than the ops do.
   For a single row each weight is read once, in the order in which it lies: 4 bytes a parameter and
   token (1 where the weights are rounded to 8 bits), and nothing else that counts. Where only the
   last token's logits are asked for, the last block computes no more than that token needs.

   Rows may have seen different numbers of tokens: prompts of unequal length, side by side. */

#include "kernels.h"

enum { NORM_FIRST = 1, RELU = 2, BIASES = 4, TURNED_HEAD = 8, LAST = 16 };
enum { CACHED = 1 << 18 };  /* weights that a core's cache holds: 1 MB */

struct cached_job {
    const float *qkv;          /* (B, T, 3, H, D): the new tokens */
    /* (H, capacity, D) of row 0 of the cache; the next row `step` further */
    float *keys, *values;
    float *y;                  /* (B, T - from, H, D) */
    const int64_t *seen, *row; /* tokens that each row has there; the B rows that get new ones */
    size T, H, D, capacity, step;
    size from;                 /* the first token that wants an answer */
    float scale;
    int only_put;              /* keys and values into the cache, no answers */
};

/* One head of one row: put the new keys and values behind the old ones, and let the tokens look at
   all up to themselves. */
static void with_cache(size item, void *data) {
    struct cached_job *job = data;
    size T = job->T, H = job->H, D = job->D, b = item / H, h = item % H;
    size seen = job->seen[job->row[b]];
    size start = job->row[b] * job->step + h * job->capacity * D;
    const float *qkv = job->qkv + b * T * 3 * H * D + h * D;
    float *restrict keys = job->keys + start, *restrict values = job->values + start;
    float *weights = malloc(sizeof(float) * (seen + T));
    for (size t = 0; t < T; t++) {
        const float *restrict q = qkv + t * 3 * H * D;
        size last = seen + t;  /* the token itself: it sees what came before it, and itself */
        memcpy(keys + last * D, q + H * D, sizeof(float) * D);
        memcpy(values + last * D, q + 2 * H * D, sizeof(float) * D);
        if (job->only_put || t < job->from) continue;
        float *restrict y = job->y + (b * (T - job->from) + t - job->from) * H * D + h * D;
        float most = -INFINITY, sum = 0;
        for (size s = 0; s <= last; s++) {
            float score = 0;
#pragma omp simd reduction(+ : score)
            for (size d = 0; d < D; d++) score += q[d] * keys[s * D + d];
            weights[s] = score * job->scale;
            most = weights[s] > most ? weights[s] : most;
        }
#pragma omp simd reduction(+ : sum)
        for (size s = 0; s <= last; s++) {
            weights[s] = exponential(weights[s] - most);
            sum += weights[s];
        }
        for (size d = 0; d < D; d++) y[d] = 0;
        for (size s = 0; s <= last; s++)
            for (size d = 0; d < D; d++) y[d] += weights[s] * values[s * D + d];
        for (size d = 0; d < D; d++) y[d] /= sum;
    }
    free(weights);
}

/* What every block works on. */
struct decoder {
    /* tokens, positions, PARTS of each block, last gain and bias, head */
    arrays parameters;
    arrays scales;               /* of each parameter with 8 bits; else the parameter itself */
    float *x, *h;                /* (rows, C): residual stream; its norm, where norms come first */
    float *spare, *y;            /* (rows, C) */
    float *qkv;                  /* (rows, 3C) */
    float *wide, *active;        /* (rows, 4C) */
    float *kept;                 /* (2, rows, H) */
    size rows, C, layers, flags;
    float eps;
    int *not_finite;             /* set when a variance is not */
};

/* The parameters of a block in their order. Where it has no biases the weight stands in their place
   too, and is not looked at. */
enum { NORM1, NORM1_BIAS, QKV, QKV_BIAS, OUT, OUT_BIAS,
       NORM2, NORM2_BIAS, EXPAND, EXPAND_BIAS, SHRINK, SHRINK_BIAS, PARTS };

static size number_of(size layer, int part) { return 2 + layer * PARTS + part; }

static const float *parameter(const struct decoder *d, size layer, int part) {
    return floats(item_of(d->parameters, number_of(layer, part)));
}

/* y = x weight + bias with the parameter of that number, in 8 bits or as floats. */
static void apply(struct decoder *d, size number, const float *bias, const float *x, float *y,
                  float *gelu, size inputs, size outputs, int turned) {
    array weight = item_of(d->parameters, number), scale = item_of(d->scales, number);
    if (scale == weight)
        linear(x, floats(weight), bias, y, gelu, d->rows, inputs, outputs, turned);
    else
        int8_linear(x, bytes(weight), floats(scale), bias, y, gelu, d->rows, inputs, outputs);
}

static void layer_linear(struct decoder *d, size layer, int part, const float *x, float *y,
                         float *gelu, size inputs, size outputs) {
    const float *bias = d->flags & BIASES ? parameter(d, layer, part + 1) : NULL;
    apply(d, number_of(layer, part), bias, x, y, gelu, inputs, outputs, 0);
}

/* The norms of a model in their order: two of each block, then the last. x += y and the norm after
   that in one pass; y NULL: the norm alone. */
static void add_and_normalise(struct decoder *d, size norm, const float *y) {
    const float *gain = parameter(d, norm / 2, norm % 2 ? NORM2 : NORM1);
    const float *bias = parameter(d, norm / 2, norm % 2 ? NORM2_BIAS : NORM1_BIAS);
    int first = d->flags & NORM_FIRST || norm == 2 * d->layers;
    float *sum = !y ? NULL : first ? d->spare : d->h, *out = first ? d->h : d->spare, *x = d->x;
    if (normalise(x, y, sum, gain, bias, out, d->rows, d->C, d->eps)) tell(d->not_finite);
    if (first && !y) return;
    d->x = d->spare;  /* the sum; or its norm, where norms come after */
    d->spare = x;
}

static void attention(struct decoder *d, struct cached_job *job, size B, int fresh) {
    job->only_put = fresh && !job->from &&
                    !packed_attention(d->qkv, d->y, d->kept, B, job->T, job->H, job->D, job->scale);
    double work = (double)(d->rows - job->from * B) * d->C * (job->seen[job->row[0]] + job->T) / 4;
    parallel(B * job->H, job->only_put ? 0 : work, with_cache, job);
    if (!job->from) return;
    d->rows = B;  /* from here on only the last of every T rows is needed */
    for (size b = 0; b < B; b++)
        memmove(d->x + b * d->C, d->x + (b * job->T + job->from) * d->C, sizeof(float) * d->C);
}

static void feed_forward(struct decoder *d, size layer) {
    size C = d->C;
    int relu = d->flags & RELU;
    layer_linear(d, layer, EXPAND, d->flags & NORM_FIRST ? d->h : d->x, d->wide,
                 relu ? NULL : d->active, C, 4 * C);
    for (size i = 0; relu && i < d->rows * 4 * C; i++)
        d->active[i] = d->wide[i] < 0 ? 0 : d->wide[i];
    layer_linear(d, layer, SHRINK, d->active, d->wide, NULL, 4 * C, C);
}

/* All that lies between the attention of a layer and that of the next, for some rows: they need
   nothing of each other. */
struct stretch {
    struct decoder *all;
    size layer, count;  /* -1: what comes before the first; rows in an item */
};

static void between(size item, void *data) {
    struct stretch *job = data;
    struct decoder d = *job->all;
    size start = item * job->count, layer = job->layer, C = d.C;
    int first = d.flags & NORM_FIRST;
    d.rows = smaller(job->count, d.rows - start);
    d.x += start * C, d.h += start * C, d.spare += start * C, d.y += start * C;
    d.qkv += start * 3 * C, d.wide += start * 4 * C, d.active += start * 4 * C;
    if (layer >= 0) {
        size norm = 2 * layer + (first ? 1 : 0);
        layer_linear(&d, layer, OUT, d.y, d.wide, NULL, C, C);
        add_and_normalise(&d, norm, d.wide);
        feed_forward(&d, layer);
        add_and_normalise(&d, norm + 1, d.wide);  /* the second time: x is again where it was */
    } else if (first) {
        add_and_normalise(&d, 0, NULL);
    }
    if (layer + 1 < d.layers)
        layer_linear(&d, layer + 1, QKV, first ? d.h : d.x, d.qkv, NULL, C, 3 * C);
}

/* Rows are shared out where a core's cache holds a layer's weights; else all rows are one item, and
   the threads share each product. */
static void run_between(struct decoder *d, size layer) {
    size count = 12 * d->C * d->C <= CACHED && d->rows > ROWS ? ROWS : d->rows;
    struct stretch job = {d, layer, count};
    parallel((d->rows + count - 1) / count, 1e9, between, &job);
}

/* ids (B, T), rows (B);   keys, values (R, layers, H, capacity, D): of row r seen[r] tokens are
   there, and the new ones are added, but not counted. logits (B, T, V), or with LAST (B, V).
   Returns 1 when one of them, or a variance, is not finite. */
KERNEL decode(array ids, arrays parameters, arrays scales, array keys, array values, array seen,
              array rows, array logits, size B, size T, size layers, size H, size D, size capacity,
              size V, size flags, real eps, real scale) {
    size C = H * D, N = B * T, fresh = T > 1;
    float *memory = malloc(sizeof(float) * N * (15 * C + 2 * H));
    int not_finite = 0;
    struct decoder d = {parameters, scales, memory, memory + N * C, memory + N * 2 * C,
                        memory + N * 3 * C, memory + N * 4 * C, memory + N * 7 * C,
                        memory + N * 11 * C, memory + N * 15 * C, N, C, layers, flags, (float)eps,
                        &not_finite};
    const int64_t *id = integers(ids), *row = integers(rows);
    for (size b = 0; b < B; b++) {
        size old = integers(seen)[row[b]];
        fresh = fresh && old == 0;
        for (size t = 0; t < T; t++) {
            const float *token = floats(item_of(parameters, 0)) + id[b * T + t] * C;
            const float *position = floats(item_of(parameters, 1)) + (old + t) * C;
            float *x = d.x + (b * T + t) * C;
            for (size j = 0; j < C; j++) x[j] = (float)scale * token[j] + position[j];
        }
    }
    run_between(&d, -1);
    for (size layer = 0; layer < layers; layer++) {
        struct cached_job job = {d.qkv, floats(keys) + layer * C * capacity,
                                 floats(values) + layer * C * capacity, d.y, integers(seen), row, T,
                                 H, D, capacity, layers * C * capacity,
                                 flags & LAST && layer == layers - 1 ? T - 1 : 0,
                                 1.0f / sqrtf((float)D), 0};
        attention(&d, &job, B, (int)fresh);
        run_between(&d, layer);
    }
    if (!(flags & NORM_FIRST)) add_and_normalise(&d, 2 * layers, NULL);
    apply(&d, number_of(layers, 2), NULL, d.h, floats(logits), NULL, C, V,
          (flags & TURNED_HEAD) != 0);
    free(memory);
    return not_finite || !all_finite(floats(logits), d.rows * V);
}
