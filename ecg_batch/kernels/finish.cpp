// What finishes a record, in float64: the donor's loop read at other times (retime.read_loop), zero-phase filters and the
// composition under the PRD limit (compose.py). Each sum has one order, whatever the width of the vectors.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>

#include "finish.h"

constexpr int WIDTH = LANES / 2;  // float64 numbers in a vector
constexpr int PARTS = 8 / WIDTH;  // vectors that hold 8 successive samples: a sum over time is 8 sums, added up at the end
constexpr int BESIDE = 16;         // rows that are filtered side by side: a filter waits for its last output, so one alone would idle
constexpr double MV_PER_STEP = 1e-3;
typedef double Doubles __attribute__((vector_size(8 * WIDTH)));
typedef int32_t Steps __attribute__((vector_size(4 * WIDTH)));
typedef Doubles AnyDoubles __attribute__((aligned(8)));
typedef Steps AnySteps __attribute__((aligned(4)));

INLINE Doubles load(const double *from) { return *(const AnyDoubles *)from; }

// Catmull-Rom through the loop int16 (lead, n) at fractional times, going round: out (lead, time).
extern "C" int ecg_read_loop(const int16_t *loop, int64_t leads, int64_t n, const double *at, int64_t time, double *out) {
    double *weight = (double *)std::malloc(time * (4 * sizeof(double) + sizeof(int32_t)) + (n + 3) * sizeof(double));
    if (!weight) return 1;
    double *around = weight + 4 * time;  // begins one sample before the loop
    int32_t *before = (int32_t *)(around + n + 3);
    for (int64_t t = 0; t < time; t++) {
        const double whole = std::floor(at[t]), u = at[t] - whole, u2 = u * u, u3 = u2 * u;
        const int64_t place = (int64_t)whole % n;
        before[t] = (int32_t)(place < 0 ? place + n : place);
        weight[t] = (2 * u2 - u - u3) / 2;
        weight[time + t] = (2 - 5 * u2 + 3 * u3) / 2;
        weight[2 * time + t] = (u + 4 * u2 - 3 * u3) / 2;
        weight[3 * time + t] = (u3 - u2) / 2;
    }
    for (int64_t lead = 0; lead < leads; lead++) {
        const int16_t *from = loop + lead * n;
        around[0] = from[n - 1], around[n + 1] = from[0], around[n + 2] = from[1 % n];
        for (int64_t i = 0; i < n; i++) around[i + 1] = from[i];
        for (int64_t t = 0; t < time; t++) {
            const double *x = around + before[t];
            double sum = weight[t] * x[0];
            sum += weight[time + t] * x[1];
            sum += weight[2 * time + t] * x[2];
            out[lead * time + t] = sum + weight[3 * time + t] * x[3];
        }
    }
    std::free(weight);
    return 0;
}

// One pass over x (time), BESIDE rows side by side.
INLINE void pass(const Filter &f, Doubles (*x)[BESIDE / WIDTH], int64_t time, int64_t step) {
    Doubles first[BESIDE / WIDTH], z0[BESIDE / WIDTH], z1[BESIDE / WIDTH];
    for (int v = 0; v < BESIDE / WIDTH; v++) first[v] = x[0][v];
    for (int64_t s = 0; s < f.sections; s++) {
        const double *b = f.sos + 6 * s, *a = b + 3;
        for (int v = 0; v < BESIDE / WIDTH; v++) z0[v] = f.start[2 * s] * first[v], z1[v] = f.start[2 * s + 1] * first[v];
        for (int64_t t = 0; t != time * step; t += step)
            for (int v = 0; v < BESIDE / WIDTH; v++) {
                const Doubles in = x[t][v], y = b[0] * in + z0[v];
                z0[v] = (b[1] * in + z1[v]) - a[1] * y;
                z1[v] = b[2] * in - a[2] * y;
                x[t][v] = y;
            }
    }
}

// scipy.signal.sosfiltfilt with its default padding: x (row, time) -> out (row, time).
extern "C" int ecg_filtfilt(const Filter *filter, const double *x, int64_t rows, int64_t time, double *out) {
    const Filter &f = *filter;
    const int64_t whole = time + 2 * f.edge;
    Doubles(*memory)[BESIDE / WIDTH] = (Doubles(*)[BESIDE / WIDTH]) std::aligned_alloc(64, whole * BESIDE * sizeof(double));
    if (!memory) return 1;
    double *wide = (double *)memory;  // (time, BESIDE)
    for (int64_t row = 0; row < rows; row += BESIDE) {
        for (int64_t lane = 0; lane < BESIDE; lane++) {  // lanes without a row repeat the last one
            const double *from = x + std::min(row + lane, rows - 1) * time;
            double *to = wide + lane;
            for (int64_t i = 0; i < f.edge; i++) {
                to[i * BESIDE] = 2 * from[0] - from[f.edge - i];
                to[(f.edge + time + i) * BESIDE] = 2 * from[time - 1] - from[time - 2 - i];
            }
            for (int64_t t = 0; t < time; t++) to[(f.edge + t) * BESIDE] = from[t];
        }
        pass(f, memory, whole, 1);
        pass(f, memory + whole - 1, whole, -1);
        for (int64_t lane = 0; lane < BESIDE && row + lane < rows; lane++)
            for (int64_t t = 0; t < time; t++) out[(row + lane) * time + t] = wide[(f.edge + t) * BESIDE + lane];
    }
    std::free(memory);
    return 0;
}

// scipy.signal.lfilter of first order, y = b0 x + z, z = b1 x - a1 y, on (row, time) of float32: coefficients b0, b1, a1; z (row)
// goes on from call to call; out_row: from one row of out to the next. Eight rows side by side, since each waits for its last output.
extern "C" void ecg_first_order(const double *coefficients, const float *x, int64_t x_row, int64_t rows, int64_t time, double *z,
                                double *out, int64_t out_row) {
    const double b0 = coefficients[0], b1 = coefficients[1], a1 = coefficients[2];
    for (int64_t row = 0; row < rows; row += 8) {
        const int64_t last = std::min<int64_t>(rows - row, 8) - 1;
        double state[8];
        for (int64_t lane = 0; lane < 8; lane++) state[lane] = z[row + std::min(lane, last)];
        const float *from[8];
        double *to[8];
        for (int64_t lane = 0; lane < 8; lane++) {  // lanes without a row repeat the last one
            from[lane] = x + (row + std::min(lane, last)) * x_row;
            to[lane] = out + (row + std::min(lane, last)) * out_row;
        }
        for (int64_t t = 0; t < time; t++)
            for (int lane = 0; lane < 8; lane++) {
                const double in = from[lane][t], y = b0 * in + state[lane];
                state[lane] = b1 * in - a1 * y;
                to[lane][t] = y;
            }
        for (int64_t lane = 0; lane <= last; lane++) z[row + lane] = state[lane];
    }
}

INLINE double total(const Doubles *sum) {
    double all = 0;
    for (int part = 0; part < PARTS; part++)
        for (int lane = 0; lane < WIDTH; lane++) all += sum[part][lane];
    return all;
}

INLINE double dot(const double *a, const double *b, int64_t time) {
    Doubles sum[PARTS] = {};
    int64_t t = 0;
    for (; t + 8 <= time; t += 8)
        for (int part = 0; part < PARTS; part++) sum[part] += load(a + t + part * WIDTH) * load(b + t + part * WIDTH);
    double rest = 0;
    for (; t < time; t++) rest += a[t] * b[t];
    return total(sum) + rest;
}

// Root of the sum of squares over twelve leads, from the 8 modelled ones: compose.norm.
INLINE double norm(const double *x, int64_t time) {
    double limb = dot(x, x, time) + dot(x + time, x + time, time) - dot(x, x + time, time), chest = 0;
    for (int64_t lead = 2; lead < 8; lead++) chest += dot(x + lead * time, x + lead * time, time);
    return std::sqrt(3.5 * limb + chest);
}

// To the nearest whole number, halves to the even one, of what is under 2^51.
INLINE Doubles nearest(Doubles x) { return (x + 6755399441055744.0) - 6755399441055744.0; }

INLINE Doubles square(Doubles x) { return x * x; }

// WIDTH samples of a record: 8 leads in -> 12 leads of whole steps out, and what rounding and texture moved them by, squared.
INLINE Doubles compose(const double *skeleton, const double *texture, double alpha, int64_t time, int32_t *out, int64_t out_time) {
    Doubles real[12], steps[8], whole[12];
    Steps step[12];
    for (int lead = 0; lead < 8; lead++) {
        const int at = lead < 2 ? lead : lead + 4;
        real[at] = load(skeleton + lead * time);
        steps[lead] = nearest((real[at] + alpha * load(texture + lead * time)) * (1 / MV_PER_STEP));
        step[at] = __builtin_convertvector(steps[lead], Steps);
    }
    step[2] = step[1] - step[0], real[2] = real[1] - real[0];  // halves round down, as in leads.twelve_leads
    step[3] = -((step[0] + step[1]) >> 1), real[3] = (real[0] + real[1]) * -0.5;
    step[4] = step[0] - (step[1] >> 1), real[4] = real[0] - real[1] * 0.5;
    step[5] = step[1] - (step[0] >> 1), real[5] = real[1] - real[0] * 0.5;
    Doubles error = {};
    for (int lead = 0; lead < 12; lead++) {
        *(AnySteps *)(out + lead * out_time) = step[lead];
        whole[lead] = __builtin_convertvector(step[lead], Doubles);
        error += square(whole[lead] * MV_PER_STEP - real[lead]);
    }
    return error;
}

// compose.compose of one record: skeleton and texture (8, time) mV -> steps (12, time); reached[0] its PRD in %, reached[1] its alpha.
// rounding_mv: by how much rounding may move a record.
extern "C" void ecg_compose(const double *skeleton, const double *texture, int64_t time, double alpha, double limit_pct,
                            double rounding_mv, int32_t *steps, double *reached) {
    const double size = norm(skeleton, time);
    const double allowed = std::max(limit_pct / 100 * size - rounding_mv, 0.0);
    alpha *= std::min(1.0, allowed / std::max(alpha * norm(texture, time), 1e-9));
    Doubles error[PARTS] = {};
    int64_t t = 0;
    for (; t + 8 <= time; t += 8)
        for (int part = 0; part < PARTS; part++) {
            const int64_t at = t + part * WIDTH;
            error[part] += compose(skeleton + at, texture + at, alpha, time, steps + at, time);
        }
    if (t < time) {  // the last few samples, filled up with zeros
        double last[2][8 * 8] = {};
        int32_t made[12 * 8];
        for (int64_t lead = 0; lead < 8; lead++)
            for (int64_t i = 0; t + i < time; i++) {
                last[0][lead * 8 + i] = skeleton[lead * time + t + i];
                last[1][lead * 8 + i] = texture[lead * time + t + i];
            }
        for (int part = 0; part < PARTS; part++)
            error[part] += compose(last[0] + part * WIDTH, last[1] + part * WIDTH, alpha, 8, made + part * WIDTH, 8);
        for (int64_t lead = 0; lead < 12; lead++)
            for (int64_t i = 0; t + i < time; i++) steps[lead * time + t + i] = made[lead * 8 + i];
    }
    reached[0] = 100 * std::sqrt(total(error)) / std::max(size, 1e-9);
    reached[1] = alpha;
}
