// Include this before any header of libcapnp. Version 0.9 writes `const char* == kj::StringPtr`,
// which C++20 as clang has it (P2468) no longer finds by reversing kj::StringPtr's own operator.
#pragma once

#include <kj/string.h>

#if defined(__clang__) && __cplusplus >= 202002L
namespace kj {
inline bool operator==(const char* a, const StringPtr& b) { return b.operator==(StringPtr(a)); }
inline bool operator!=(const char* a, const StringPtr& b) { return !b.operator==(StringPtr(a)); }
} // namespace kj
#endif
