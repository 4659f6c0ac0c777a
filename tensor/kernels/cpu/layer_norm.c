/* LayerNorm, alone or of a residual sum: s = x + y,   out = gain (s - mean) / sqrt(variance + eps)
   + bias, over rows of `width`.

   With n = (s - mean) / sqrt(variance + eps) and dn = gain dout:

       ds = (dn - mean(dn) - n mean(dn n)) / sqrt(variance + eps),
       dgain = sum n dout,   dbias = sum dout

   Kept: s, and the mean and 1 / sqrt(variance + eps) of each row. Forward reads 8 bytes an element
   and writes 8, backward reads 8 and writes 4. */

#include "kernels.h"

struct norm_job {
    const float *x, *y;          /* (rows, width); y may be NULL */
    float *s;                    /* x + y, where there is a y; else NULL, and s is x */
    const float *gain, *bias;    /* (width) */
    float *out, *mean, *scale;   /* (rows, width), (rows), (rows) */
    const float *dout;           /* (rows, width) */
    float *sums;                 /* (2, blocks, width): of dgain, of dbias */
    size rows, width, blocks;
    float eps;
    /* set when a variance is not finite, or when squares may have vanished from it; and when a sum
       of gradients is not finite */
    int lost;
};

static void forward(size block, void *data) {
    struct norm_job *job = data;
    size width = job->width, stop = smaller((block + 1) * ROWS, job->rows);
    const float *restrict gain = job->gain, *restrict bias = job->bias;
    for (size i = block * ROWS; i < stop; i++) {
        const float *restrict s = job->x + i * width;
        if (job->y) {
            const float *restrict x = s, *restrict y = job->y + i * width;
            float *restrict sum = job->s + i * width;
            for (size j = 0; j < width; j++) sum[j] = x[j] + y[j];
            s = sum;
        }
        float total = 0, squares = 0, rest = 0;
#pragma omp simd reduction(+ : total)
        for (size j = 0; j < width; j++) total += s[j];
        float mean = total / width;
#pragma omp simd reduction(+ : squares, rest)
        for (size j = 0; j < width; j++) {
            squares += (s[j] - mean) * (s[j] - mean);
            rest += s[j] - mean;
        }
        rest /= width;  /* what rounding left out of the mean */
        mean += rest;
        float variance = fmaxf(squares / width - rest * rest, 0) + job->eps;
        if (!(squares <= FLT_MAX) || variance < 1e-30f) tell(&job->lost);
        float scale = 1.0f / sqrtf(variance);
        float *restrict out = job->out + i * width;
        for (size j = 0; j < width; j++) out[j] = (s[j] - mean) * scale * gain[j] + bias[j];
        if (!job->mean) continue;  /* nobody keeps them */
        job->mean[i] = mean;
        job->scale[i] = scale;
    }
}

static void run_forward(struct norm_job *job) {
    parallel(row_blocks(job->rows), 4.0 * job->rows * job->width, forward, job);
}

/* the same where nothing is kept for backward; s = x + y where there is a y, else both are NULL */
int normalise(const float *x, const float *y, float *s, const float *gain, const float *bias,
              float *out, size rows, size width, float eps) {
    struct norm_job job = {.x = x, .y = y, .s = s, .gain = gain, .bias = bias, .out = out,
                           .rows = rows, .width = width, .eps = eps};
    run_forward(&job);
    return job.lost;
}

static void backward(size block, void *data) {
    struct norm_job *job = data;
    size width = job->width, stop = smaller((block + 1) * ROWS, job->rows);
    const float *restrict gain = job->gain;
    float *restrict dgain = job->sums + block * width;
    float *restrict dbias = job->sums + (job->blocks + block) * width;
    memset(dgain, 0, sizeof(float) * width);
    memset(dbias, 0, sizeof(float) * width);
    for (size i = block * ROWS; i < stop; i++) {
        const float *restrict s = job->x + i * width, *restrict dout = job->dout + i * width;
        float *restrict dx = job->out + i * width;
        float mean = job->mean[i], scale = job->scale[i], total = 0, dot = 0;
#pragma omp simd reduction(+ : total, dot)
        for (size j = 0; j < width; j++) {
            float dn = dout[j] * gain[j], n = (s[j] - mean) * scale;
            dx[j] = dn;
            total += dn;
            dot += dn * n;
            dgain[j] += n * dout[j];
            dbias[j] += dout[j];
        }
        if (!(fabsf(total) <= FLT_MAX) || !(fabsf(dot) <= FLT_MAX)) tell(&job->lost);
        total /= width;
        dot /= width;
        for (size j = 0; j < width; j++)
            dx[j] = scale * (dx[j] - total - (s[j] - mean) * scale * dot);
    }
}

static int run_backward(struct norm_job *job, float *dgain, float *dbias) {
    size width = job->width;
    job->blocks = row_blocks(job->rows);
    job->sums = malloc(sizeof(float) * (2 * job->blocks * width + 1));
    parallel(job->blocks, 4.0 * job->rows * width, backward, job);
    add_blocks(job->sums, dgain, job->blocks, width);
    add_blocks(job->sums + job->blocks * width, dbias, job->blocks, width);
    free(job->sums);
    return job->lost || !all_finite(dgain, width) || !all_finite(dbias, width);
}

/* out = layer_norm(x);   kept: (2, rows), the mean and 1 / sqrt(variance + eps) of each row.
   Returns 1 when a variance is not finite, or so small that squares may have vanished from it. */
KERNEL norm_forward(array x, array gain, array bias, array out, array kept, size rows, size width,
                    real eps) {
    struct norm_job job = {.x = floats(x), .gain = floats(gain), .bias = floats(bias),
                           .out = floats(out), .mean = floats(kept), .scale = floats(kept) + rows,
                           .rows = rows, .width = width, .eps = (float)eps};
    run_forward(&job);
    return job.lost;
}

/* s = x + y;   out = layer_norm(s) */
KERNEL residual_norm_forward(array x, array y, array s, array gain, array bias, array out,
                             array kept, size rows, size width, real eps) {
    struct norm_job job = {.x = floats(x), .y = floats(y), .s = floats(s),
                           .gain = floats(gain), .bias = floats(bias), .out = floats(out),
                           .mean = floats(kept), .scale = floats(kept) + rows,
                           .rows = rows, .width = width, .eps = (float)eps};
    run_forward(&job);
    return job.lost;
}

/* dx, dgain and dbias from dout;   dgain, dbias: (width). Returns 1 when a sum is not finite. */
KERNEL norm_backward(array x, array gain, array kept, array dout, array dx, array dgain,
                     array dbias, size rows, size width) {
    struct norm_job job = {.x = floats(x), .gain = floats(gain), .mean = floats(kept),
                           .scale = floats(kept) + rows, .dout = floats(dout),
                           .out = floats(dx), .rows = rows, .width = width};
    return run_backward(&job, floats(dgain), floats(dbias));
}
