// Builders of info.hpp's function pointers; only generated sources include this.
#pragma once

#include <memory>
#include <utility>
#include <variant>
#include <vector>

#include "engine/state/info.hpp"

namespace nestor::state::make {

template <class T>
inline constexpr ListOps list_ops{
    [](const void* list) { return static_cast<const std::vector<T>*>(list)->size(); },
    [](void* list, std::size_t size) { static_cast<std::vector<T>*>(list)->resize(size); },
    [](void* list, std::size_t index) -> void* {
        return &(*static_cast<std::vector<T>*>(list))[index];
    },
};

template <class T>
void* create() {
    return std::make_unique<T>().release();
}

template <class T>
void destroy(void* value) {
    std::unique_ptr<T>(static_cast<T*>(value)).reset();
}

template <class T>
bool equal(const void* a, const void* b) {
    return *static_cast<const T*>(a) == *static_cast<const T*>(b);
}

template <class V, std::size_t... I>
void* emplace_nth(V& variant, std::size_t index, std::index_sequence<I...>) {
    void* out = nullptr;
    ((I == index ? void(out = &variant.template emplace<I>()) : void()), ...);
    return out;
}

template <class V>
constexpr VariantInfo variant(std::uint32_t tag_slot, std::span<const FieldInfo> arms) {
    return {
        tag_slot,
        arms,
        [](const void* v) { return static_cast<const V*>(v)->index(); },
        [](void* v) {
            return std::visit([](auto& arm) { return static_cast<void*>(&arm); },
                              *static_cast<V*>(v));
        },
        [](void* v, std::size_t index) {
            return emplace_nth(*static_cast<V*>(v), index,
                               std::make_index_sequence<std::variant_size_v<V>>());
        },
    };
}

} // namespace nestor::state::make
