/* Cross-entropy of logits x (rows, V) against a target each:

       loss = L - x[target],   L = ln sum e^x;   dx = (e^(x - L) - onehot) dloss

   Kept: x, and L as the two numbers m = max x and ln sum e^(x - m): their sum would have lost
   digits where m is large. Forward reads 4 bytes an element (8, where a row leaves the cache),
   backward reads 4 and writes 4. */

#include "kernels.h"

struct entropy_job {
    const float *x, *shares;
    const int64_t *targets;
    float *losses, *most, *level, *dx;
    size rows, width;
    int64_t ignored;  /* a target that counts for nothing, where `ignores` */
    int ignores;
    int out_of_range, not_finite;  /* set when one is */
};

enum { FEW = 4 };  /* rows in an item: they may be long */

static void forward(size block, void *data) {
    struct entropy_job *job = data;
    size width = job->width, stop = smaller((block + 1) * FEW, job->rows);
    for (size i = block * FEW; i < stop; i++) {
        const float *restrict x = job->x + i * width;
        float most = -INFINITY, sum = 0;
#pragma omp simd reduction(max : most)
        for (size j = 0; j < width; j++) most = x[j] > most ? x[j] : most;
#pragma omp simd reduction(+ : sum)
        for (size j = 0; j < width; j++) sum += exponential(x[j] - most);
        float level = logf(sum);
        job->most[i] = most;
        job->level[i] = level;
        int64_t target = job->targets[i];
        if (job->ignores && target == job->ignored) {
            job->losses[i] = 0;
            continue;
        }
        if (target < 0 || target >= width) tell(&job->out_of_range);
        else job->losses[i] = level - (x[target] - most);
    }
}

static void backward(size block, void *data) {
    struct entropy_job *job = data;
    size width = job->width, stop = smaller((block + 1) * FEW, job->rows);
    for (size i = block * FEW; i < stop; i++) {
        const float *restrict x = job->x + i * width;
        float *restrict dx = job->dx + i * width, most = job->most[i], level = job->level[i];
        float share = job->shares[i];
        int64_t target = job->targets[i];
        if (job->ignores && target == job->ignored) {  /* whatever the logits are */
            memset(dx, 0, sizeof(float) * width);
            continue;
        }
        if (!(fabsf(share) <= FLT_MAX)) tell(&job->not_finite);
#pragma omp simd
        for (size j = 0; j < width; j++) dx[j] = exponential((x[j] - most) - level) * share;
        /* whatever was written there since, uncounted, this stays in its row */
        if (target >= 0 && target < width) dx[target] -= share;
    }
}

/* losses: (rows);   totals: (2, rows), what is kept of L;   targets: int64; returns 1 when one is
   not in 0 to width - 1 */
KERNEL cross_entropy_forward(array x, array targets, array losses, array totals, size rows,
                             size width, size ignores, size ignored) {
    struct entropy_job job = {.x = floats(x), .targets = integers(targets),
                              .losses = floats(losses), .most = floats(totals),
                              .level = floats(totals) + rows, .rows = rows, .width = width,
                              .ignores = (int)ignores, .ignored = ignored};
    parallel((rows + FEW - 1) / FEW, 4.0 * rows * width, forward, &job);
    return job.out_of_range;
}

/* dx: (rows, width);   shares: dloss of each row. Returns 1 when one is not finite: our e^x is 0
   too early to be multiplied by that. */
KERNEL cross_entropy_backward(array x, array targets, array totals, array shares, array dx,
                              size rows, size width, size ignores, size ignored) {
    struct entropy_job job = {.x = floats(x), .shares = floats(shares),
                              .targets = integers(targets), .most = floats(totals),
                              .level = floats(totals) + rows, .dx = floats(dx), .rows = rows,
                              .width = width, .ignores = (int)ignores, .ignored = ignored};
    parallel((rows + FEW - 1) / FEW, 4.0 * rows * width, backward, &job);
    return job.not_finite;
}
