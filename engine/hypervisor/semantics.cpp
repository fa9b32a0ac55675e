// Tells people what a difference of engine semantics means.
#include "engine/hypervisor/semantics.hpp"

#include <fmt/format.h>

namespace nestor::hv {

std::string changed_since(u32 older) {
    std::string text;
    for (const SemanticsChange& change : semantics_changes) {
        if (change.number > older) {
            text += fmt::format("{}{}: {}", text.empty() ? "" : "; ", change.number, change.what);
        }
    }
    return text;
}

Result<> same_semantics(u32 recorded) {
    if (recorded == engine_semantics) {
        return {};
    }
    const std::string what = fmt::format("recorded under engine semantics {}, and this vm's are {}",
                                         recorded, engine_semantics);
    if (recorded > engine_semantics || recorded == 0) {
        return fail(ErrorCode::incompatible, what, "use a newer vm");
    }
    return fail(ErrorCode::incompatible, what + " (" + changed_since(recorded) + ")",
                "use the vm that recorded it");
}

} // namespace nestor::hv
