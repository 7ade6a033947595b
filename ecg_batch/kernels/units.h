// Units of recorded texture, laid in time with beats: what units.cpp and record.cpp share.

#pragma once

#include <algorithm>

#include "lanes.h"

constexpr int LEADS = 8;

struct Units {  // arrays over units, those of a donor one after another
    int64_t levels, samples;             // levels: an even number
    const int16_t *level;                // (unit, level), as noise.counted: those of 128 lenders come from memory, so they are small
    const int64_t *square;               // (unit,): the sum of its squares
    const uint8_t *ordinary;             // (unit,)
    const int64_t *of_first, *of_stop;   // (donor,): its units are of_first .. of_stop - 1
    const int64_t *row, *r, *first, *last;  // (unit,), as in units.Units
    const int16_t *rest;                 // (donor, sample, LEADS)
    int64_t t_end, p_begins, least;      // samples: units.T_END_S, P_BEGINS_S, LEAST_TP_S
};

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

struct Cells {  // of units under beats, in the order of time; (beat,). What follows begins is a crossfade of `fade` samples
    const int64_t *begins, *r, *unit;
    int64_t beats;
    const double *rising, *falling;  // (fade,): what the cell and the one before it are multiplied by
    int64_t fade;
};

// show(t, x, y, rise, fall) for each sample start + t: what the cells show there is x (LEADS,) where x == y, as there is no crossfade, or
// one with itself, which would get louder; else rise x + fall y. 0 done, 1 a unit reaches out of its recording.
template <typename Show>
INLINE int each_laid(const Units &u, const Cells &of, int64_t start, int64_t time, Show show) {
    int64_t beat = 0;
    const auto place = [&](int64_t beat, int64_t now) -> const int16_t * {
        const int64_t at = shown(u, of.unit[beat], now - of.r[beat]);
        return at < 0 || at >= u.samples ? nullptr : u.rest + (u.row[of.unit[beat]] * u.samples + at) * LEADS;
    };
    for (int64_t t = 0; t < time; t++) {
        const int64_t now = start + t;
        while (beat + 1 < of.beats && of.begins[beat + 1] <= now) beat++;
        const int64_t since = now - of.begins[beat];
        const bool fades = beat > 0 && since < of.fade;
        const int16_t *x = place(beat, now), *y = fades ? place(beat - 1, now) : x;
        if (!x || !y) return 1;
        show(t, x, y, fades ? of.rising[since] : 1.0, fades ? of.falling[since] : 0.0);
    }
    return 0;
}
