// Exceptions as a table: vector, double-fault class, error code (SDM 3A 6.3, 6.15).
#pragma once

#include <array>

#include "src/base/types.hpp"

namespace nestor::arch {

enum class ExceptionClass : u8 { benign, contributory, page_fault, double_fault };

enum class Exception : u8 {
#define EXCEPTION(vector, name, klass, error) name = vector,
#include "engine/arch/exception.def"
#undef EXCEPTION
};

struct ExceptionInfo {
    bool defined = false;
    bool has_error_code = false;
    ExceptionClass klass = ExceptionClass::benign;
};

/// Indexed by vector; vectors that are not exceptions have defined = false.
inline constexpr std::array<ExceptionInfo, 32> exceptions = [] {
    constexpr bool yes = true;
    constexpr bool no = false;
    std::array<ExceptionInfo, 32> table{};
#define EXCEPTION(vector, name, klass, error) table[vector] = {true, error, ExceptionClass::klass};
#include "engine/arch/exception.def"
#undef EXCEPTION
    return table;
}();

static_assert(exceptions[14].has_error_code && !exceptions[6].has_error_code);

} // namespace nestor::arch
