// Scalars of the schema language: their width and their defaults as wire bits.
#pragma once

#include "tools/schema/model.hpp"

namespace nestor::schema {

/// Width and signedness of a scalar; bits 0 where the type is none.
struct Scalar {
    Kind kind = Kind::nothing;
    unsigned bits = 0;
};

Scalar scalar_of(capnp::schema::Type::Reader type);

/// The wire bits of a scalar default: what the stored value is XORed with.
std::uint64_t default_bits(capnp::schema::Value::Reader value);

} // namespace nestor::schema
