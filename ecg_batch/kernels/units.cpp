// Texture by units (synthesis/units.py): the recorded unit that is nearest to what a beat asks for, and units laid in time with the
// beats. Both give what numpy gives, to the bit.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>

#include "lanes.h"

constexpr int LEADS = 8;
constexpr int WIDTH = LANES / 2;  // float64 numbers in a vector
constexpr int BEATS = 32;         // that are compared with a unit at a time: most records of 10 s have fewer
constexpr int VECTORS = BEATS / WIDTH;
typedef double Doubles __attribute__((vector_size(8 * WIDTH)));
typedef int64_t Longs __attribute__((vector_size(8 * WIDTH)));

struct Units {  // arrays over units, those of a donor one after another
    int64_t levels, samples;
    const int16_t *level;                // (unit, level), as noise.counted: those of 128 lenders come from memory, so they are small
    const double *square;                // (unit,): the sum of its squares
    const uint8_t *ordinary;             // (unit,)
    const int64_t *of_first, *of_stop;   // (donor,): its units are of_first .. of_stop - 1
    const int64_t *row, *r, *first, *last;  // (unit,), as in units.Units
    const int16_t *rest;                 // (donor, sample, LEADS)
    int64_t t_end, p_begins, least;      // samples: units.T_END_S, P_BEGINS_S, LEAST_TP_S
};

// The squared distance of a unit from what is wanted (level,).
INLINE double gap_of(const Units &u, int64_t unit, const double *wanted) {
    const int16_t *level = u.level + unit * u.levels;
    double sum[4] = {};
    for (int64_t j = 0; j < u.levels; j++) sum[j % 4] += (level[j] - wanted[j]) * (level[j] - wanted[j]);
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

// chosen (beat,): of the units of these lenders, donors in ascending order, the nearest to wanted (beat, level); the first of equals.
// An ordinary beat takes an ordinary unit and another beat another one, where there is any; and none that one of the `recent` beats
// before has, while there is another (recent < 256). The unit that was recorded after that of the beat before is taken where its
// distance is at most `follow` times that of the nearest. Distances are sums of whole multiples, exact in whatever order they are
// added. 0 done, 1 out of memory.
extern "C" int ecg_choose(const Units *units, const int64_t *lenders, int64_t count, const double *wanted, const uint8_t *ordinary,
                          int64_t beats, int64_t recent, double follow, int64_t *chosen) {
    const Units &u = *units;
    int64_t all = 0;
    for (int64_t i = 0; i < count; i++) all += u.of_stop[lenders[i]] - u.of_first[lenders[i]];
    Doubles(*asked)[VECTORS] = (Doubles(*)[VECTORS]) std::aligned_alloc(64, u.levels * VECTORS * sizeof(Doubles));
    int64_t *pool = (int64_t *)std::malloc((all + beats) * sizeof(int64_t)), *place = pool + all;  // place (beat,): of the pool
    uint8_t *taken = (uint8_t *)std::calloc(all, 1);  // how many of the recent beats have it
    if (!asked || !pool || !taken) return std::free(asked), std::free(pool), std::free(taken), 1;
    bool any[2] = {};
    for (int64_t i = 0, at = 0; i < count; i++)
        for (int64_t unit = u.of_first[lenders[i]]; unit < u.of_stop[lenders[i]]; unit++)
            pool[at++] = unit, any[u.ordinary[unit]] = true;
    for (int64_t start = 0; start < beats; start += BEATS) {
        Doubles unlike[2][VECTORS], least[VECTORS];  // unlike: what is added to the distance of units of either kind
        Longs nearest[VECTORS] = {};
        for (int64_t lane = 0; lane < BEATS; lane++) {  // lanes without a beat repeat the last one
            const int64_t beat = std::min(start + lane, beats - 1), v = lane / WIDTH, at = lane % WIDTH;
            for (int64_t i = 0; i < u.levels; i++) asked[i][v][at] = -2 * wanted[beat * u.levels + i];
            for (int kind = 0; kind < 2; kind++) unlike[kind][v][at] = kind != ordinary[beat] && any[ordinary[beat]] ? INFINITY : 0;
            least[v][at] = INFINITY;
        }
        for (int64_t at = 0; at < all; at++) {
            const int64_t unit = pool[at];
            const int16_t *level = u.level + unit * u.levels;
            Doubles gap[VECTORS];  // less what the beat's own level adds, which is the same for all units
            for (int v = 0; v < VECTORS; v++) gap[v] = u.square[unit] + unlike[u.ordinary[unit]][v];
            for (int64_t j = 0; j < u.levels; j++)
                for (int v = 0; v < VECTORS; v++) gap[v] += (double)level[j] * asked[j][v];
            for (int v = 0; v < VECTORS; v++) {
                const Longs nearer = gap[v] < least[v];
                least[v] = nearer ? gap[v] : least[v];
                nearest[v] = nearer ? Longs{} + at : nearest[v];
            }
        }
        for (int64_t lane = 0; lane < BEATS && start + lane < beats; lane++) place[start + lane] = nearest[lane / WIDTH][lane % WIDTH];
    }
    for (int64_t beat = 0; beat < beats; beat++) {
        if (beat > recent) taken[place[beat - recent - 1]]--;
        const double *asked_for = wanted + beat * u.levels;
        const auto fits = [&](int64_t at) { return !taken[at] && (u.ordinary[pool[at]] == ordinary[beat] || !any[ordinary[beat]]); };
        if (taken[place[beat]]) {
            double least = INFINITY;
            for (int64_t at = 0; at < all; at++) {
                if (!fits(at)) continue;
                const double gap = gap_of(u, pool[at], asked_for);
                if (gap < least) least = gap, place[beat] = at;
            }
        }
        if (beat > 0) {
            const int64_t before = place[beat - 1], after = before + 1;
            if (after < all && u.row[pool[after]] == u.row[pool[before]] && fits(after) &&
                gap_of(u, pool[after], asked_for) <= follow * gap_of(u, pool[place[beat]], asked_for))
                place[beat] = after;
        }
        taken[place[beat]]++;
        chosen[beat] = pool[place[beat]];
    }
    std::free(asked), std::free(pool), std::free(taken);
    return 0;
}

// 0, 1, ... room, room - 1, ... 0, 1, ... for distances 0, 1, 2, ...
INLINE int64_t to_and_fro(int64_t distance, int64_t room) {
    const int64_t phase = distance % (2 * room);
    return std::min(phase, 2 * room - phase);
}

// The sample of its recording that a unit shows so long after its R, or before; to and fro in TP beyond its ends.
INLINE int64_t shown(const Units &u, int64_t unit, int64_t after_r) {
    const int64_t r = u.r[unit], first = u.first[unit], last = u.last[unit];
    int64_t at = r + after_r;
    if (at > last) at = last - to_and_fro(at - last, std::max(last - (r + u.t_end), u.least));
    if (at < first) at = first + to_and_fro(first - at, std::max(r - u.p_begins - first, u.least));
    return at;
}

// A product of its own, rounded as numpy rounds it: the sum that follows takes it as it is, whatever the flags say of contraction.
INLINE double product(double a, double b) {
    double made = a * b;
#if defined(__aarch64__)
    asm("" : "+w"(made));
#else
    asm("" : "+x"(made));
#endif
    return made;
}

// out (LEADS, time): samples from `start` on of units laid under beats: begins, r, unit (beat,), in the order of time. The first `fade`
// samples of a cell are a crossfade with the one before, by rising and falling (fade,). 0 done, 1 a unit reaches out of its recording.
extern "C" int ecg_lay(const Units *units, const int64_t *begins, const int64_t *r, const int64_t *unit, int64_t beats,
                       const double *rising, const double *falling, int64_t fade, int64_t start, int64_t time, double *out) {
    const Units &u = *units;
    int64_t beat = 0;
    for (int64_t t = 0; t < time; t++) {
        const int64_t now = start + t;
        while (beat + 1 < beats && begins[beat + 1] <= now) beat++;
        const int64_t at = shown(u, unit[beat], now - r[beat]), since = now - begins[beat];
        if (at < 0 || at >= u.samples) return 1;
        const int16_t *x = u.rest + (u.row[unit[beat]] * u.samples + at) * LEADS, *y = x;
        if (beat > 0 && since < fade) {
            const int64_t before = shown(u, unit[beat - 1], now - r[beat - 1]);
            if (before < 0 || before >= u.samples) return 1;
            y = u.rest + (u.row[unit[beat - 1]] * u.samples + before) * LEADS;
        }
        if (x == y)  // no crossfade, or one with itself, which would get louder
            for (int lead = 0; lead < LEADS; lead++) out[lead * time + t] = x[lead];
        else
            for (int lead = 0; lead < LEADS; lead++)
                out[lead * time + t] = product(rising[since], x[lead]) + product(falling[since], y[lead]);
    }
    return 0;
}
