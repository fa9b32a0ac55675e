// The two switches over Cap'n Proto's scalar types. Signed defaults are cut to their width, since
// the wire XORs bits, not numbers.
#include "tools/schema/values.hpp"

namespace nestor::schema {

using capnp::schema::Type;
using capnp::schema::Value;

Scalar scalar_of(Type::Reader type) {
    switch (type.which()) {
    case Type::BOOL:
        return {Kind::boolean, 1};
    case Type::INT8:
        return {Kind::signed_integer, 8};
    case Type::INT16:
        return {Kind::signed_integer, 16};
    case Type::INT32:
        return {Kind::signed_integer, 32};
    case Type::INT64:
        return {Kind::signed_integer, 64};
    case Type::UINT8:
        return {Kind::unsigned_integer, 8};
    case Type::UINT16:
        return {Kind::unsigned_integer, 16};
    case Type::UINT32:
        return {Kind::unsigned_integer, 32};
    case Type::UINT64:
        return {Kind::unsigned_integer, 64};
    case Type::ENUM:
        return {Kind::enumeration, 16};
    default:
        return {};
    }
}

std::uint64_t default_bits(Value::Reader value) {
    switch (value.which()) {
    case Value::BOOL:
        return value.getBool() ? 1 : 0;
    case Value::INT8:
        return static_cast<std::uint8_t>(value.getInt8());
    case Value::INT16:
        return static_cast<std::uint16_t>(value.getInt16());
    case Value::INT32:
        return static_cast<std::uint32_t>(value.getInt32());
    case Value::INT64:
        return static_cast<std::uint64_t>(value.getInt64());
    case Value::UINT8:
        return value.getUint8();
    case Value::UINT16:
        return value.getUint16();
    case Value::UINT32:
        return value.getUint32();
    case Value::UINT64:
        return value.getUint64();
    case Value::ENUM:
        return value.getEnum();
    default:
        return 0;
    }
}

} // namespace nestor::schema
