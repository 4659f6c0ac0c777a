/* Cross-entropy of logits x (rows, V) against a target each:

       loss = L - (1 - s) x[target] - s mean x,   L = ln sum e^x,   s the label smoothing
       dx = (e^(x - L) - (1 - s) onehot - s / width) dloss

   Kept: x, and L as the two numbers m = max x and ln sum e^(x - m): their sum would have lost
   digits where m is large. Forward reads 4 bytes an element (8, where a row leaves the cache),
   backward reads 4 and writes 4. */

#include "kernels.h"

struct entropy_job {
    const float *x, *shares;
    const int64_t *targets;
    float *losses, *most, *level, *dx;
    size rows, width;
    real smoothing;
    float uniform, wanted;  /* what is wanted of any class, s / width, and of the target */
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
        if (!job->smoothing) continue;
        real all = 0, s = job->smoothing;
#pragma omp simd reduction(+ : all)
        for (size j = 0; j < width; j++) all += x[j] - most;
        job->losses[i] = (float)((1 - s) * job->losses[i] + s * (level - all / width));
    }
}

static void backward(size block, void *data) {
    struct entropy_job *job = data;
    size width = job->width, stop = smaller((block + 1) * FEW, job->rows);
    for (size i = block * FEW; i < stop; i++) {
        const float *restrict x = job->x + i * width;
        float *restrict dx = job->dx + i * width, most = job->most[i], level = job->level[i];
        float share = job->shares[i], uniform = job->uniform;
        int64_t target = job->targets[i];
        if (job->ignores && target == job->ignored) {  /* whatever the logits are */
            memset(dx, 0, sizeof(float) * width);
            continue;
        }
        if (!(fabsf(share) <= FLT_MAX)) tell(&job->not_finite);
#pragma omp simd
        for (size j = 0; j < width; j++)
            dx[j] = (exponential((x[j] - most) - level) - uniform) * share;
        /* whatever was written there since, uncounted, this stays in its row */
        if (target < 0 || target >= width) continue;
        if (!job->smoothing) dx[target] -= share;
        else dx[target] = (exponential((x[target] - most) - level) - job->wanted) * share;
    }
}

static void smooth(struct entropy_job *job, real smoothing) {
    job->smoothing = smoothing;
    job->uniform = (float)(smoothing / job->width);
    job->wanted = (float)(1 - smoothing + smoothing / job->width);
}

/* losses: (rows);   totals: (2, rows), what is kept of L;   targets: int64; returns 1 when one is
   not in 0 to width - 1 */
KERNEL cross_entropy_forward(array x, array targets, array losses, array totals, size rows,
                             size width, size ignores, size ignored, real smoothing) {
    struct entropy_job job = {.x = floats(x), .targets = integers(targets),
                              .losses = floats(losses), .most = floats(totals),
                              .level = floats(totals) + rows, .rows = rows, .width = width,
                              .ignores = (int)ignores, .ignored = ignored};
    smooth(&job, smoothing);
    parallel((rows + FEW - 1) / FEW, 4.0 * rows * width, forward, &job);
    return job.out_of_range;
}

/* dx: (rows, width);   shares: dloss of each row. Returns 1 when one is not finite: our e^x is 0
   too early to be multiplied by that. */
KERNEL cross_entropy_backward(array x, array targets, array totals, array shares, array dx,
                              size rows, size width, size ignores, size ignored,
                              real smoothing) {
    struct entropy_job job = {.x = floats(x), .shares = floats(shares),
                              .targets = integers(targets), .most = floats(totals),
                              .level = floats(totals) + rows, .dx = floats(dx), .rows = rows,
                              .width = width, .ignores = (int)ignores, .ignored = ignored};
    smooth(&job, smoothing);
    parallel((rows + FEW - 1) / FEW, 4.0 * rows * width, backward, &job);
    return job.not_finite;
}
