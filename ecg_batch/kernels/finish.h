// What finish.cpp does for record.cpp too.

#pragma once

#include "lanes.h"

struct Filter {  // second-order sections as scipy has them
    int64_t sections, edge;     // edge: samples by which both ends are extended, turned about the end point
    const double *sos, *start;  // (section, 6); (section, 2), the state after an endless 1
};

// x and out may be the same where there are no more than 16 rows.
extern "C" int ecg_filtfilt(const Filter *filter, const double *x, int64_t rows, int64_t time, double *out);
extern "C" void ecg_compose(const double *skeleton, const double *texture, int64_t time, double alpha, double limit_pct,
                            double rounding_mv, int32_t *steps, double *reached);
