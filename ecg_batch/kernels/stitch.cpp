// What a long record's skeleton spends its time on: beats of the donor read at fractional times and laid over each other (stitch.py),
// amplitude and axis moved by breathing and drift (sway.py). Every sample is a function of its own row of the arguments.

#include <cmath>
#include <cstdint>

constexpr int LEADS = 8, BLOCK = 64;
typedef double Sample __attribute__((vector_size(8 * LEADS)));  // one sample, all leads of it
typedef Sample Anywhere __attribute__((aligned(8)));

static inline Sample at(const double *x, int64_t row) { return *(const Anywhere *)(x + row * LEADS); }

struct Side {  // time, rise, tilt (time,); value, slope (interval, lead)
    const double *time, *rise, *tilt, *value, *slope;
};

// Catmull-Rom between samples of x (samples, lead); at whole samples x itself.
static inline Sample side(const Side &s, const double *x, int64_t samples, int64_t t, int64_t k) {
    const double time = s.time[t] < 1 ? 1 : s.time[t] > samples - 3 ? samples - 3 : s.time[t];
    const int64_t whole = (int64_t)time;
    const double u = time - whole;
    const Sample before = at(x, whole - 1), now = at(x, whole), after = at(x, whole + 1), then = at(x, whole + 2);
    const Sample first = after - before, third = then - before - 3 * (after - now), second = 2 * (after - now) - first - third;
    return now + (first + u * (second + u * third)) * (u / 2) + s.rise[t] * at(s.value, k) + s.tilt[t] * at(s.slope, k);
}

// out (lead, time): side a where fade (time,) is 0, b where it is 1; k (time,) the interval of each sample.
extern "C" void ecg_stitch(const double *x, int64_t samples, const Side *a, const Side *b, const double *fade, const int64_t *k,
                           int64_t time, double *out) {
    for (int64_t t = 0; t < time; t++) {
        Sample made;
        if (fade[t] <= 0) made = side(*a, x, samples, t, k[t]);
        else made = side(*b, x, samples, t, k[t]);
        if (fade[t] > 0 && fade[t] < 1) {
            const Sample of_a = side(*a, x, samples, t, k[t]);
            made = of_a + fade[t] * (made - of_a);
        }
        for (int lead = 0; lead < LEADS; lead++) out[lead * time + t] = made[lead];
    }
}

// x (lead, time) moved about level (lead,): plus breath (time,) times `by_breath` (lead, lead) of it, plus drift times `by_drift`.
extern "C" void ecg_sway(const double *x, const double *level, const double *breath, const double *drift, const double *by_breath,
                         const double *by_drift, int64_t time, double *out) {
    for (int64_t start = 0; start < time; start += BLOCK) {
        const int64_t count = time - start < BLOCK ? time - start : BLOCK;
        double about[LEADS][BLOCK];
        for (int lead = 0; lead < LEADS; lead++)
            for (int64_t t = 0; t < BLOCK; t++) about[lead][t] = t < count ? x[lead * time + start + t] - level[lead] : 0;
        for (int lead = 0; lead < LEADS; lead++) {
            double by[2][BLOCK] = {};
            for (int from = 0; from < LEADS; from++)
                for (int t = 0; t < BLOCK; t++) {
                    by[0][t] += by_breath[lead * LEADS + from] * about[from][t];
                    by[1][t] += by_drift[lead * LEADS + from] * about[from][t];
                }
            for (int64_t t = 0; t < count; t++) {
                const int64_t i = start + t;
                out[lead * time + i] = x[lead * time + i] + breath[i] * by[0][t] + drift[i] * by[1][t];
            }
        }
    }
}
