// The fields of a vCPU's units one by one, found in the generated descriptions: what the mutation
// suite resets.
#pragma once

#include <string>
#include <vector>

#include "engine/state/vcpu.hpp"

namespace nestor::matrix {

/// A scalar, an element of an array of scalars, fixed data, or a list as a whole.
struct Field {
    std::string path;        ///< "cpu.segments[2].base"
    std::string schema_path; ///< without the places in lists: "cpu.segments.base"
    std::size_t offset = 0;  ///< in state::Vcpu
    std::size_t size = 0;    ///< bytes; 0: a list
    void (*resize)(void* list, std::size_t size) = nullptr;
    std::size_t (*length)(const void* list) = nullptr;
};

/// All fields, in schema order.
[[nodiscard]] const std::vector<Field>& vcpu_fields();
[[nodiscard]] bool is_default(const state::Vcpu& vcpu, const Field& field);
void reset(state::Vcpu& vcpu, const Field& field);

} // namespace nestor::matrix
