// CHECK: for what only a bug can break. On in release builds.
//
// No byte from a guest, a peer or a file may reach a CHECK; those are Fault, VmExit or Result.
#pragma once

#include <cstdint>
#include <initializer_list>

namespace nestor::detail {
/// Prints file, line, the condition and the values, then aborts.
[[noreturn, gnu::cold]] void check_failed(const char* file, int line, const char* condition,
                                          std::initializer_list<std::uint64_t> values = {});
} // namespace nestor::detail

/// CHECK(cond) or CHECK(cond, {values...}) with integral values worth seeing.
#define CHECK(cond, ...)                                                                           \
    do {                                                                                           \
        if (!(cond)) [[unlikely]] {                                                                \
            ::nestor::detail::check_failed(__FILE__, __LINE__, #cond __VA_OPT__(, ) __VA_ARGS__);  \
        }                                                                                          \
    } while (false)
