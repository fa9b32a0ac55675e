// What every generated state header declares about its structs.
#pragma once

#include <cstdint>
#include <string_view>

namespace nestor::state {

/// Run-time description of one state struct; defined in engine/state/info.hpp.
struct StructInfo;

/// Specialised for every struct of schema/*.capnp that is not a group or a union's arm:
/// `id` (Cap'n Proto's), `name` ("Vcpu", "Vcpu.Segment"), `rank` ($rank, else 0), `info`.
template <class T>
struct Meta;

template <class... T>
struct TypeList {};

/// A state struct, as encode, decode, diff and the digests take it.
template <class T>
concept Stateful = requires { Meta<T>::id; };

/// The struct's Cap'n Proto id: names the type in snapshots.
template <Stateful T>
constexpr std::uint64_t type_id() {
    return Meta<T>::id;
}

/// The struct's name in the schema.
template <Stateful T>
constexpr std::string_view type_name() {
    return Meta<T>::name;
}

} // namespace nestor::state
