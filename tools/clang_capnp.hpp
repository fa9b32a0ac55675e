// Included ahead of every source that clang 19 reads as C++20. The headers of Cap'n Proto 0.9,
// which Debian 12 ships, compare a C string with a kj::StringPtr and rely on the operands being
// swapped; g++ 12 does that, clang since 16 does not, because StringPtr declares operator!= as well
// (P2468).
#pragma once

#include <kj/string.h>

namespace kj {
inline bool operator==(const char* left, const StringPtr& right) {
    return right == StringPtr(left);
}
inline bool operator!=(const char* left, const StringPtr& right) { return !(left == right); }
} // namespace kj
