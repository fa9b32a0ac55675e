// Engine semantics: the number of the engine's guest-visible behaviour, and what changed with each.
//
// A snapshot says under which its machine ran. An older machine goes on under this build's; what
// asks for the same run bit for bit (replay, fixtures) asks for the same number.
#pragma once

#include <array>
#include <string>
#include <string_view>

#include "src/base/result.hpp"
#include "src/base/types.hpp"

namespace nestor::hv {

struct SemanticsChange {
    u32 number = 0;
    std::string_view since; ///< the release that had it first
    std::string_view what;
};

/// Oldest first: number n is row n - 1.
inline constexpr auto semantics_changes = std::to_array<SemanticsChange>({
#define ENGINE_SEMANTICS(number, since, what) {number, since, what},
#include "engine/hypervisor/semantics.def"
#undef ENGINE_SEMANTICS
});

/// Of this build: what is saved from now on carries it.
inline constexpr u32 engine_semantics = semantics_changes.back().number;

static_assert(
    [] {
        for (std::size_t i = 0; i < semantics_changes.size(); ++i) {
            const SemanticsChange& change = semantics_changes[i];
            if (change.number != i + 1 || change.since.empty() || change.what.empty()) {
                return false;
            }
        }
        return true;
    }(),
    "numbers follow each other from 1, and each says since when and what");

/// What changed behind semantics `older`, up to this build's: "2: ...; 3: ...". Empty: nothing, or
/// a later vm's.
[[nodiscard]] std::string changed_since(u32 older);

/// For what must be the same run: an `incompatible` error that tells what changed, unless
/// `recorded` is this build's number.
[[nodiscard]] Result<> same_semantics(u32 recorded);

} // namespace nestor::hv
