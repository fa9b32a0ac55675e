// The end of the road for a bug: say where and with which values, then abort so that a core and a
// backtrace exist. Writes with stdio only, because anything else may be what is broken.
#include "src/base/check.hpp"

#include <cinttypes>
#include <cstdio>
#include <cstdlib>

namespace nestor::detail {

void check_failed(const char* file, int line, const char* condition,
                  std::initializer_list<std::uint64_t> values) {
    std::fprintf(stderr, "%s:%d: CHECK failed: %s", file, line, condition);
    for (std::uint64_t v : values) {
        std::fprintf(stderr, " 0x%" PRIx64, v);
    }
    std::fputc('\n', stderr);
    std::abort();
}

} // namespace nestor::detail
