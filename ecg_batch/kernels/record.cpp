// Records of 10 s: where their beats are (synthesis/retime.py), and from there to stored integers in one pass (synthesis/compose.py), one
// record at a time, so that all of it stays in cache. In float64, in the order of the references in numpy.

#include <cmath>
#include <cstdint>
#include <cstdlib>

#include "finish.h"
#include "units.h"

constexpr int WIDTH = LANES / 2;      // float64 numbers in a vector
constexpr int PARTS = LEADS / WIDTH;  // vectors that hold one sample of all leads
constexpr int BLOCK = 8;              // samples that are turned from leads side by side to samples side by side at a time
constexpr int64_t CORNERS = 5, BEFORE = 3, ROUNDS = 4;  // as in retime.py
constexpr double MV_PER_UV = 1e-3;
typedef double Doubles __attribute__((vector_size(8 * WIDTH)));
typedef int16_t Shorts __attribute__((vector_size(2 * WIDTH)));
typedef Shorts AnyShorts __attribute__((aligned(2)));
typedef int32_t Wholes __attribute__((vector_size(4 * WIDTH)));
typedef Doubles AnyDoubles __attribute__((aligned(8)));

// WIDTH numbers of 16 bits as float64. GCC would take them one by one, which was a quarter of a record's time.
INLINE Doubles doubles(const int16_t *x) {
#if defined(__AVX512F__) && LANES == 16
    return _mm512_cvtepi32_pd(_mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)x)));
#elif defined(__AVX2__) && LANES == 8
    return _mm256_cvtepi32_pd(_mm_cvtepi16_epi32(_mm_loadl_epi64((const __m128i *)x)));
#else
    return __builtin_convertvector(__builtin_convertvector((Shorts) * (const AnyShorts *)x, Wholes), Doubles);
#endif
}

struct Loops {  // of all donors of a bank, as retime.Loops
    int64_t samples, most;          // of around and of r
    const int16_t *around;          // (donor, samples, LEADS): from one sample before the loop to two after it
    const int64_t *r;               // (donor, most)
    const int64_t *beats, *length;  // (donor,)
    const int64_t *fiducials;       // (donor, 4): P onset, QRS onset, QRS end, T end, from R
};

// Corners of the time map from one beat to the next: retime._corners.
INLINE void corners_of(double *corner, double r, double next, double st_t, double pr, double qrs_off, double qrs_on) {
    corner[0] = r;
    corner[1] = r + qrs_off;
    corner[2] = corner[1] + st_t;
    corner[4] = next + qrs_on;
    corner[3] = corner[4] - pr;
}

// retime.time_beats of each record. Record i has the beats first[i] .. first[i + 1] - 1 of placed and source, and from
// CORNERS (first[i] - i) on CORNERS of out and in for each of them but the last. uniforms (record, 2); factors (record, many) or null;
// clear: samples at either end whose beats do not count.
extern "C" void ecg_time_beats(const Loops *loops, const int64_t *donor, const double *rr_samples, const double *uniforms,
                               const double *factors, int64_t many, int64_t records, const int64_t *first, double samples, double clear,
                               double *stretches, int64_t *placed, int64_t *source, double *out, double *in) {
    for (int64_t i = 0; i < records; i++) {
        const int64_t *r = loops->r + donor[i] * loops->most, beats = loops->beats[donor[i]], length = loops->length[donor[i]];
        const int64_t count = first[i + 1] - first[i], start = (int64_t)(uniforms[2 * i] * (double)beats);
        const auto rr_after = [&](int64_t beat) { return beat + 1 < beats ? r[beat + 1] - r[beat] : r[0] + length - r[beat]; };
        int64_t *at = placed + first[i], *of = source + first[i], begin = r[start];  // begin: in the loop, of the beat before all others
        double *output = out + CORNERS * (first[i] - i), *input = in + CORNERS * (first[i] - i);
        double *since = output;  // of each beat, before stretching; corners come over it later
        since[0] = 0;
        for (int64_t k = 0; k < count; k++) {
            of[k] = ((start + k - BEFORE) % beats + beats) % beats;
            const int64_t rr = rr_after(of[k]);
            if (k < BEFORE) begin -= rr;
            if (k + 1 < count) since[k + 1] = since[k] + (factors ? product((double)rr, factors[i * many + k % many]) : (double)rr);
        }
        const double zero = since[BEFORE], offset = uniforms[2 * i + 1] * rr_samples[i];
        for (int64_t k = 0; k < count; k++) since[k] -= zero;
        double stretch = rr_samples[i] / ((double)length / (double)beats);
        const auto beat = [&](int64_t k) { return offset + product(stretch, since[k]); };
        for (int64_t round = 0; round < ROUNDS; round++) {
            int64_t one = 0, after = 0;
            while (one < count && beat(one) < clear) one++;
            while (after < count && beat(after) < samples - clear) after++;
            if (after - one <= 1) break;
            const double share = rr_samples[i] * (double)(after - one - 1) / (beat(after - 1) - beat(one));
            stretch *= share;
            if (std::fabs(share - 1) < 1e-9) break;
        }
        for (int64_t k = 0; k < count; k++) at[k] = (int64_t)std::nearbyint(beat(k));
        stretches[i] = stretch;
        const int64_t *f = loops->fiducials + 4 * donor[i];
        const double qrs_on = (double)f[1], qrs_off = (double)f[2], qrs = qrs_off - qrs_on, slower = std::pow(stretch, 1.0 / 3);
        double now = (double)begin;
        for (int64_t k = 0; k + 1 < count; k++) {
            const double then = now + (double)rr_after(of[k]), rr = (double)(at[k + 1] - at[k]), donor_rr = then - now;
            const double pr = std::min(qrs_on - (double)f[0], product(0.4, donor_rr + qrs_on - qrs_off));
            const double st_t = std::min(std::max((double)f[3] - qrs_off, 0.0), donor_rr + qrs_on - pr - qrs_off - 1);
            const double wanted = std::max(product(st_t + qrs_off - qrs_on, slower) - qrs, 1.0);
            const double give = std::min(std::max(rr + qrs_on - qrs_off - 1, 1.0) / (wanted + pr), 1.0);
            corners_of(output + CORNERS * k, (double)at[k], (double)at[k + 1], product(give, wanted), product(give, pr), qrs_off, qrs_on);
            corners_of(input + CORNERS * k, now, then, st_t, pr, qrs_off, qrs_on);
            now = then;
        }
    }
}

// numpy.interp(t, out, in) of t = 0, 1, 2, ... one after another: corners (corner,) ascending.
struct TimeMap {
    const double *out, *in;
    int64_t corners, at;
    double slope;

    void turn_at_corner() { slope = at + 1 < corners ? (in[at + 1] - in[at]) / (out[at + 1] - out[at]) : 0; }

    double operator()(double t) {
        if (at + 1 < corners && out[at + 1] <= t) {
            while (at + 1 < corners && out[at + 1] <= t) at++;
            turn_at_corner();
        }
        if (t < out[0] || at + 1 == corners || out[at] == t) return in[at];
        return product(slope, t - out[at]) + in[at];
    }
};

// BLOCK samples, leads side by side, in millivolts: to out (LEADS, time) from sample t on.
INLINE void turn(const double (*block)[LEADS], int64_t t, int64_t time, double *out) {
    const int64_t count = std::min<int64_t>(BLOCK, time - t);
    for (int64_t lead = 0; lead < LEADS; lead++)
        for (int64_t k = 0; k < count; k++) out[lead * time + t + k] = block[k][lead];
}

// The beats, retime.read_loop, times matrix (LEADS, LEADS) where there is one: out (LEADS, time) in microvolts.
INLINE void read_loop(const Loops &loops, int64_t donor, TimeMap map, const double *matrix, int64_t time, double *out) {
    const int16_t *around = loops.around + donor * loops.samples * LEADS;
    const int64_t n = loops.length[donor];
    Doubles column[LEADS][PARTS];
    if (matrix)
        for (int lead = 0; lead < LEADS; lead++)
            for (int from = 0; from < LEADS; from++) column[from][lead / WIDTH][lead % WIDTH] = matrix[lead * LEADS + from];
    alignas(64) double block[BLOCK][LEADS];
    map.turn_at_corner();
    int64_t begin = (int64_t)std::floor(map(0)) / n * n;  // of the turn of the loop: a division for each sample would take its time
    for (int64_t t = 0; t < time; t++) {
        const double at = map((double)t), whole = std::floor(at), u = at - whole, u2 = u * u, u3 = u2 * u;
        while ((int64_t)whole < begin) begin -= n;
        while ((int64_t)whole >= begin + n) begin += n;
        const int16_t *x = around + ((int64_t)whole - begin) * LEADS;
        const double weight[4] = {(2 * u2 - u - u3) / 2, (2 - 5 * u2 + 3 * u3) / 2, (u + 4 * u2 - 3 * u3) / 2, (u3 - u2) / 2};
        double *to = block[t % BLOCK];
        for (int part = 0; part < PARTS; part++) {
            const auto sample = [&](int k) { return doubles(x + k * LEADS + part * WIDTH); };
            Doubles sum = weight[0] * sample(0);
            sum += weight[1] * sample(1);
            sum += weight[2] * sample(2);
            *(Doubles *)(to + part * WIDTH) = sum + weight[3] * sample(3);
        }
        if (matrix) {
            Doubles turned[PARTS];
            for (int part = 0; part < PARTS; part++) turned[part] = column[0][part] * to[0];
            for (int lead = 1; lead < LEADS; lead++)
                for (int part = 0; part < PARTS; part++) turned[part] += column[lead][part] * to[lead];
            for (int part = 0; part < PARTS; part++) *(Doubles *)(to + part * WIDTH) = turned[part];
        }
        if (t % BLOCK == BLOCK - 1 || t + 1 == time) turn(block, t / BLOCK * BLOCK, time, out);
    }
}

struct Job {  // records, and what each is made of. Arrays over records but where said otherwise; a null is what is not asked for
    int64_t records, samples;
    const int64_t *donor;
    const int64_t *corner_first;       // (record + 1,): its corners are corner_first[i] .. corner_first[i + 1] - 1 of the next two
    const double *corner_out, *corner_in;
    const double *matrix;              // (record, LEADS, LEADS), or null
    const double *skeleton_uv;         // (record, LEADS, time) instead of the donor's loop, or null
    const double *texture_mv;          // (record, LEADS, time), finished, instead of units, or null
    const int64_t *cell_first;         // (record + 1,): its cells are cell_first[i] .. cell_first[i + 1] - 1 of the next three
    const int64_t *begins, *r, *unit;
    const double *rising, *falling;    // (fade,)
    int64_t fade;
    const int64_t *drift;              // row of the bank that lends the slow part
    const int16_t *slow;               // (donor, LEADS, samples of a recording)
    const double *share;               // what texture is multiplied by before, or null
    double alpha, limit_pct, rounding_mv;
    const Filter *low_pass;            // or null
    double *skeleton_mv;               // (record, LEADS, time), filtered: what the records are held against, or null
    int16_t *ecg;                      // (record, 12, time), cut to what 16 bits hold
    int32_t *extremes;                 // (record, 12, 2): least and greatest step of each lead, not cut
    double *reached;                   // (record, 2): PRD in %, alpha
};

// Recorded texture of record i: the slow part of one donor and the cells of others, out (LEADS, time) in microvolts.
INLINE int lay(const Units &u, const Job &job, int64_t i, double *out) {
    const int64_t first = job.cell_first[i], time = job.samples;
    const Cells cells = {job.begins + first, job.r + first, job.unit + first, job.cell_first[i + 1] - first,
                         job.rising, job.falling, job.fade};
    alignas(64) double block[BLOCK][LEADS];
    const int failed = each_laid(u, cells, 0, time, [&](int64_t t, const int16_t *x, const int16_t *y, double rise, double fall) {
        for (int part = 0; part < PARTS; part++) {
            const auto of = [&](const int16_t *z) { return doubles(z + part * WIDTH); };
            *(Doubles *)(block[t % BLOCK] + part * WIDTH) = x == y ? of(x) : product(Doubles{} + rise, of(x)) + product(Doubles{} + fall, of(y));
        }
        if (t % BLOCK == BLOCK - 1 || t + 1 == time) turn(block, t / BLOCK * BLOCK, time, out);
    });
    if (failed) return 1;
    const int16_t *slow = job.slow + job.drift[i] * LEADS * u.samples;
    for (int64_t lead = 0; lead < LEADS; lead++)
        for (int64_t t = 0; t < time; t++) out[lead * time + t] += slow[lead * u.samples + t];
    return 0;
}

// Steps (12, time) as 16 bits, and the least and the greatest of each lead.
INLINE void store(const int32_t *steps, int64_t time, int16_t *ecg, int32_t *extremes) {
    for (int64_t lead = 0; lead < 12; lead++) {
        int32_t least = steps[lead * time], greatest = least;
        for (int64_t t = 0; t < time; t++) {
            const int32_t step = steps[lead * time + t];
            least = std::min(least, step), greatest = std::max(greatest, step);
            ecg[lead * time + t] = (int16_t)std::min(std::max(step, -32768), 32767);
        }
        extremes[2 * lead] = least, extremes[2 * lead + 1] = greatest;
    }
}

// compose.finish of each record. 0 done, 1 out of memory, 2 a unit reaches out of its recording.
extern "C" int ecg_records(const Loops *loops, const Units *units, const Job *given) {
    const Job &job = *given;
    const int64_t time = job.samples, whole = LEADS * time;
    double *skeleton = (double *)std::aligned_alloc(64, (2 * whole * sizeof(double) + 12 * time * sizeof(int32_t) + 63) / 64 * 64);
    if (!skeleton) return 1;
    double *texture = skeleton + whole;
    int32_t *steps = (int32_t *)(texture + whole);
    int failed = 0;
    for (int64_t i = 0; i < job.records && !failed; i++) {
        if (job.skeleton_uv) {
            std::copy_n(job.skeleton_uv + i * whole, whole, skeleton);
        } else {
            const int64_t first = job.corner_first[i];
            const TimeMap map = {job.corner_out + first, job.corner_in + first, job.corner_first[i + 1] - first, 0, 0};
            read_loop(*loops, job.donor[i], map, job.matrix ? job.matrix + i * LEADS * LEADS : nullptr, time, skeleton);
        }
        for (int64_t k = 0; k < whole; k++) skeleton[k] *= MV_PER_UV;
        if (job.texture_mv) {
            std::copy_n(job.texture_mv + i * whole, whole, texture);
        } else {
            if (lay(*units, job, i, texture)) failed = 2;
            for (int64_t k = 0; k < whole; k++) texture[k] *= MV_PER_UV;
        }
        static_assert(2 * LEADS <= 16, "more rows than are filtered in place");
        const int64_t rows = job.texture_mv ? LEADS : 2 * LEADS;
        if (job.low_pass && ecg_filtfilt(job.low_pass, skeleton, rows, time, skeleton)) failed = 1;
        if (failed) break;
        if (job.share)
            for (int64_t k = 0; k < whole; k++) texture[k] *= job.share[i];
        ecg_compose(skeleton, texture, time, job.alpha, job.limit_pct, job.rounding_mv, steps, job.reached + 2 * i);
        store(steps, time, job.ecg + 12 * time * i, job.extremes + 24 * i);
        if (job.skeleton_mv) std::copy_n(skeleton, whole, job.skeleton_mv + i * whole);
    }
    std::free(skeleton);
    return failed;
}
