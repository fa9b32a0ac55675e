// The list of all state structs, for callers that learn the type at run time: a snapshot's manifest
// names it by id, `vm state decode` by name. Built from the generated AllTypes, at compile time.
#include <algorithm>
#include <array>

#include "engine/state/all.hpp"
#include "engine/state/codec.hpp"
#include "engine/state/info.hpp"

namespace nestor::state::erased {

namespace {

template <class... T>
constexpr std::array<const StructInfo*, sizeof...(T)> infos(TypeList<T...>) {
    return {&Meta<T>::info...};
}

constexpr auto all_infos = infos(AllTypes{});

/// A heap value of a type known by its description only.
class Value final {
public:
    explicit Value(const StructInfo& info) : info_(info), value_(info.create()) {}
    ~Value() { info_.destroy(value_); }
    Value(const Value&) = delete;
    Value& operator=(const Value&) = delete;

    [[nodiscard]] void* get() const { return value_; }

private:
    const StructInfo& info_;
    void* value_;
};

} // namespace

std::span<const StructInfo* const> all() { return all_infos; }

const StructInfo* find(std::uint64_t type_id) {
    const auto found = std::ranges::find_if(
        all_infos, [&](const StructInfo* info) { return info->id == type_id; });
    return found == all_infos.end() ? nullptr : *found;
}

const StructInfo* find(std::string_view name) {
    const auto found =
        std::ranges::find_if(all_infos, [&](const StructInfo* info) { return info->name == name; });
    return found == all_infos.end() ? nullptr : *found;
}

std::uint64_t id(const StructInfo& info) { return info.id; }

std::string_view name(const StructInfo& info) { return info.name; }

Result<std::string> decode_to_json(const StructInfo& info, std::span<const std::byte> bytes) {
    const Value value(info);
    TRY(decode(value.get(), info, bytes));
    return to_json(value.get(), info);
}

Result<std::vector<Difference>> diff_bytes(const StructInfo& info, std::span<const std::byte> left,
                                           std::span<const std::byte> right) {
    const Value a(info);
    const Value b(info);
    TRY(decode(a.get(), info, left), "left");
    TRY(decode(b.get(), info, right), "right");
    return diff(a.get(), b.get(), info);
}

} // namespace nestor::state::erased
