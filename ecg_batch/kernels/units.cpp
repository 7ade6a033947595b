// Texture by units (synthesis/units.py): the recorded unit that is nearest to what a beat asks for, and units laid in time with the
// beats. Both give what numpy gives, to the bit.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>

#include "units.h"

constexpr int BEATS = 16;  // that are compared with a unit at a time: most records of 10 s have fewer
constexpr int VECTORS = BEATS / LANES;
constexpr int32_t NEVER = INT32_MAX;  // the distance of what may not be taken

// The squared distance of a unit from what is wanted (level,).
INLINE double gap_of(const Units &u, int64_t unit, const double *wanted) {
    const int16_t *level = u.level + unit * u.levels;
    double sum[4] = {};
    for (int64_t j = 0; j < u.levels; j++) sum[j % 4] += (level[j] - wanted[j]) * (level[j] - wanted[j]);
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

// What choose works in: pool (unit,) the units of the lenders, taken (unit,) how many of the recent beats have each, gap (unit, BEATS).
struct Pool {
    int64_t *unit;
    uint8_t *taken;
    Ints (*gap)[VECTORS];
    int64_t size;
};

// Distances of all of a pool from up to BEATS beats, less what the beat's own level adds, in 1/8; nearest (BEATS,): the first of the
// nearest. Whole numbers: 16 bits hold 16 times a level (int8 times 4 at most, and a code), 32 bits sums of products. Lanes without a
// beat repeat the last one. asked (levels / 2,) is room for pairs of levels.
INLINE void compare(const Units &u, const Pool &pool, const double *wanted, const uint8_t *ordinary, const bool *any, int64_t beats,
                    Ints (*asked)[VECTORS], int64_t *nearest) {
    Ints banned[2][VECTORS], least[VECTORS], at_least[VECTORS] = {};  // banned: units of either kind, where the other is there
    for (int64_t lane = 0; lane < BEATS; lane++) {
        const int64_t beat = std::min(lane, beats - 1), v = lane / LANES, at = lane % LANES;
        const auto of = [&](int64_t j) { return (uint16_t)std::lrint(-16 * wanted[beat * u.levels + j]); };
        for (int64_t j = 0; j < u.levels / 2; j++) asked[j][v][at] = (int32_t)(of(2 * j) | (uint32_t)of(2 * j + 1) << 16);
        for (int kind = 0; kind < 2; kind++) banned[kind][v][at] = kind != ordinary[beat] && any[ordinary[beat]] ? -1 : 0;
        least[v][at] = NEVER;
    }
    for (int64_t at = 0; at < pool.size; at++) {
        const int16_t *level = u.level + pool.unit[at] * u.levels;
        Ints gap[VECTORS];
        for (int v = 0; v < VECTORS; v++) gap[v] = Ints{} + (int32_t)(8 * u.square[pool.unit[at]]);
        for (int64_t j = 0; j < u.levels / 2; j++) {
            int32_t pair;
            std::memcpy(&pair, level + 2 * j, sizeof(pair));
            for (int v = 0; v < VECTORS; v++) gap[v] += pair_products(Ints{} + pair, asked[j][v]);
        }
        for (int v = 0; v < VECTORS; v++) {
            gap[v] = banned[u.ordinary[pool.unit[at]]][v] ? Ints{} + NEVER : gap[v];
            pool.gap[at][v] = gap[v];
            const Ints nearer = gap[v] < least[v];
            least[v] = nearer ? gap[v] : least[v];
            at_least[v] = nearer ? Ints{} + (int32_t)at : at_least[v];
        }
    }
    for (int64_t lane = 0; lane < BEATS; lane++) nearest[lane] = at_least[lane / LANES][lane % LANES];
}

// Of one record: chosen (beat,) of the units of a pool.
INLINE void choose(const Units &u, const Pool &pool, const double *wanted, const uint8_t *ordinary, int64_t beats, int64_t recent,
                   double follow, Ints (*asked)[VECTORS], int64_t *chosen) {
    bool any[2] = {};
    for (int64_t at = 0; at < pool.size; at++) pool.taken[at] = 0, any[u.ordinary[pool.unit[at]]] = true;
    int64_t nearest[BEATS];
    for (int64_t beat = 0; beat < beats; beat++) {  // chosen holds places in the pool until the end
        const int64_t lane = beat % BEATS;
        if (!lane) compare(u, pool, wanted + beat * u.levels, ordinary + beat, any, beats - beat, asked, nearest);
        if (beat > recent) pool.taken[chosen[beat - recent - 1]]--;
        const double *asked_for = wanted + beat * u.levels;
        const auto gap = [&](int64_t at) { return pool.gap[at][lane / LANES][lane % LANES]; };
        int64_t place = nearest[lane];
        if (pool.taken[place]) {
            int32_t least = NEVER;
            for (int64_t at = 0; at < pool.size; at++)
                if (gap(at) < least && !pool.taken[at]) least = gap(at), place = at;
        }
        if (beat > 0) {
            const int64_t before = chosen[beat - 1], after = before + 1;
            if (after < pool.size && u.row[pool.unit[after]] == u.row[pool.unit[before]] && !pool.taken[after] && gap(after) != NEVER &&
                gap_of(u, pool.unit[after], asked_for) <= follow * gap_of(u, pool.unit[place], asked_for))
                place = after;
        }
        pool.taken[place]++;
        chosen[beat] = place;
    }
    for (int64_t beat = 0; beat < beats; beat++) chosen[beat] = pool.unit[chosen[beat]];
}

// chosen (beat,): of the units of each record's lenders, which end before lenders[ends[i]], donors in ascending order, the nearest to
// wanted (beat, level), multiples of 1/16; the first of equals. Record i has the beats first[i] .. first[i + 1] - 1. An ordinary beat
// takes an ordinary unit and another beat another one, where there is any; and none that one of the `recent` beats before has, while
// there is another (recent < 256). The unit that was recorded after that of the beat before is taken where its distance is at most
// `follow` times that of the nearest. 0 done, 1 out of memory.
extern "C" int ecg_choose(const Units *units, const int64_t *lenders, const int64_t *ends, int64_t records, const int64_t *first,
                          const double *wanted, const uint8_t *ordinary, int64_t recent, double follow, int64_t *chosen) {
    const Units &u = *units;
    const auto lent = [&](int64_t i, auto take) {  // every unit that record i may have
        for (int64_t j = i ? ends[i - 1] : 0; j < ends[i]; j++)
            for (int64_t unit = u.of_first[lenders[j]]; unit < u.of_stop[lenders[j]]; unit++) take(unit);
    };
    int64_t largest = 1;
    for (int64_t i = 0; i < records; i++) {
        int64_t all = 0;
        lent(i, [&](int64_t) { all++; });
        largest = std::max(largest, all);
    }
    Ints(*asked)[VECTORS] = (Ints(*)[VECTORS]) std::aligned_alloc(64, (u.levels + largest) * sizeof(*asked));
    int64_t *unit = (int64_t *)std::malloc(largest * (sizeof(int64_t) + 1));
    if (!asked || !unit) return std::free(asked), std::free(unit), 1;
    Pool pool = {unit, (uint8_t *)(unit + largest), asked + u.levels, 0};
    for (int64_t i = 0; i < records; i++) {
        pool.size = 0;
        lent(i, [&](int64_t one) { unit[pool.size++] = one; });
        choose(u, pool, wanted + first[i] * u.levels, ordinary + first[i], first[i + 1] - first[i], recent, follow, asked,
               chosen + first[i]);
    }
    std::free(asked), std::free(unit);
    return 0;
}

// out (LEADS, time): samples from `start` on of units laid under beats. 0 done, 1 a unit reaches out of its recording.
extern "C" int ecg_lay(const Units *units, const int64_t *begins, const int64_t *r, const int64_t *unit, int64_t beats,
                       const double *rising, const double *falling, int64_t fade, int64_t start, int64_t time, double *out) {
    return each_laid(*units, {begins, r, unit, beats, rising, falling, fade}, start, time,
                     [&](int64_t t, const int16_t *x, const int16_t *y, double rise, double fall) {
                         for (int lead = 0; lead < LEADS; lead++)
                             out[lead * time + t] = x == y ? x[lead] : product(rise, (double)x[lead]) + product(fall, (double)y[lead]);
                     });
}
