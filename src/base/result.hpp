// Operational failures as values.
//
// A function that can fail for reasons outside the program (a file, a peer, a flag) returns
// Result<T>. The failure carries a stable code, which decides the exit status of `vm`, a message
// that grows by noun phrases of context on its way up, and a remedy where one exists.
#pragma once

#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <tl/expected.hpp>

#include "src/base/types.hpp"

namespace nestor {

/// Stable failure classes. The number is the exit status of `vm` (DESIGN.md, "The program").
enum class ErrorCode : u8 {
    usage = 2,        ///< the request itself is wrong: a flag, a size, a name
    incompatible = 4, ///< the request is right, but this host or engine cannot serve it
    corrupt = 6,      ///< data read does not agree with its digest, schema or format
    failed = 8,       ///< any other failure: I/O, no space, not found, busy
};

struct Error {
    ErrorCode code = ErrorCode::failed;
    std::string message;
    std::string remedy; ///< what to do about it; empty where nothing useful can be said
};

/// A T or an Error. Ignoring one is a compile-time warning, and warnings are errors here.
template <class T = void>
class [[nodiscard]] Result : public tl::expected<T, Error> {
public:
    using tl::expected<T, Error>::expected;
};

using Failure = tl::unexpected<Error>;

[[nodiscard]] inline Failure fail(ErrorCode code, std::string message, std::string remedy = {}) {
    return Failure(Error{code, std::move(message), std::move(remedy)});
}

/// Puts "context: " in front of the message of an error on its way up.
[[nodiscard]] inline Error with_context(Error error, std::string_view context) {
    if (!context.empty()) {
        error.message.insert(0, ": ").insert(0, context);
    }
    return error;
}

namespace detail {
template <class T>
decltype(auto) take(Result<T>&& r) {
    if constexpr (!std::is_void_v<T>) {
        return std::move(*r);
    }
}
} // namespace detail

} // namespace nestor

/// TRY(expr) or TRY(expr, "restoring unit lapic[0]"): the value of a Result, or return its error
/// from the enclosing function, with the noun phrase put in front.
#define TRY(expr, ...)                                                                             \
    __extension__({                                                                                \
        auto try_result_ = (expr);                                                                 \
        if (!try_result_) [[unlikely]] {                                                           \
            return ::nestor::Failure(::nestor::with_context(std::move(try_result_).error(),        \
                                                            ::std::string_view{__VA_ARGS__}));     \
        }                                                                                          \
        ::nestor::detail::take(std::move(try_result_));                                            \
    })
