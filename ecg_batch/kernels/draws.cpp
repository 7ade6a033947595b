// Uniform numbers of many records at once: Philox4x64-10 (Salmon et al. 2011), the very numbers of numpy.random.Philox, whose objects take
// microseconds to be put to a record.

#include <cstdint>

constexpr int ROUNDS = 10;
constexpr uint64_t FIRST = 0xD2E7470EE14C6C93, SECOND = 0xCA5A826395121157;  // multipliers
constexpr uint64_t GOLDEN = 0x9E3779B97F4A7C15, ROOT = 0xBB67AE8584CAA73B;   // by which the key goes on from round to round

static inline void block(const uint64_t *counter, uint64_t key, uint64_t other_key, uint64_t *out) {
    uint64_t a = counter[0], b = counter[1], c = counter[2], d = counter[3];
    for (int round = 0; round < ROUNDS; round++) {
        const unsigned __int128 left = (unsigned __int128)FIRST * a, right = (unsigned __int128)SECOND * c;
        a = (uint64_t)(right >> 64) ^ b ^ key, b = (uint64_t)right;
        c = (uint64_t)(left >> 64) ^ d ^ other_key, d = (uint64_t)left;
        key += GOLDEN, other_key += ROOT;
    }
    out[0] = a, out[1] = b, out[2] = c, out[3] = d;
}

// out (record, count) in [0, 1): of the stream of each record, from its beginning.
extern "C" void ecg_uniforms(uint64_t seed, const uint64_t *record, int64_t records, uint64_t stream, int64_t count, double *out) {
    for (int64_t i = 0; i < records; i++)
        for (int64_t first = 0; first < count; first += 4) {
            const uint64_t counter[4] = {(uint64_t)(first / 4 + 1), 0, 0, stream};
            uint64_t drawn[4];
            block(counter, seed, record[i], drawn);
            for (int64_t k = 0; k < 4 && first + k < count; k++)
                out[i * count + first + k] = (double)(drawn[k] >> 11) * (1.0 / 9007199254740992.0);
        }
}
