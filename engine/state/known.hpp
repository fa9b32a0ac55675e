// What another version's schemas had a place for, and what of a value it could not hold.
#pragma once

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "engine/state/meta.hpp"

namespace nestor::state {

/// The names in a version's frozen .layout files (fixtures/schema). What a name stands for never
/// changes (`schema_freeze`), so names are enough.
class KnownSchema final {
public:
    KnownSchema() = default; ///< nothing
    /// Lines of other kinds are passed over.
    explicit KnownSchema(std::string_view layouts);

    [[nodiscard]] bool has_struct(std::string_view name) const { return structs_.contains(name); }
    [[nodiscard]] bool has_field(std::string_view structure, std::string_view field) const;
    /// How many enumerants it had, which are the lowest.
    [[nodiscard]] std::size_t enumerants(std::string_view enumeration) const;

private:
    std::set<std::string, std::less<>> structs_;
    std::set<std::string, std::less<>> fields_; ///< "Cpu.rip"
    std::map<std::string, std::size_t, std::less<>> enumerants_;
};

/// Something in a value that has no place there.
struct Surplus {
    std::string path;  ///< in schema names: "segments[2].base"
    std::string value; ///< as in JSON
};

namespace erased {
/// Every field of `value` that `known` lacks and that is not at its default, and every enumerant
/// that it lacks. Empty: that version reads the canonical bytes of the value as what they mean.
[[nodiscard]] std::vector<Surplus> surplus(const void* value, const StructInfo& info,
                                           const KnownSchema& known);
} // namespace erased

} // namespace nestor::state
