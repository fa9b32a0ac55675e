// Random live state by description. It leaves no bit of a field out: each integer takes its whole
// width, so a codec that drops high bits does not survive the round trip.
#include "tests/tools/schema/random_state.hpp"

#include <string>
#include <vector>

#include "engine/state/info.hpp"
#include "src/base/types.hpp"

#include <cstring>

namespace nestor::test {

namespace {

using namespace state;

u64 integer(Rng& rng, unsigned bits) {
    const u64 mask = bits == 64 ? ~u64{0} : (u64{1} << bits) - 1;
    switch (rng.below(8)) {
    case 0:
        return 0;
    case 1:
        return 1;
    case 2:
        return mask;
    case 3:
        return u64{1} << (bits - 1);
    default:
        return rng() & mask;
    }
}

void fill_bytes(u8* data, std::size_t size, Rng& rng) {
    for (std::size_t i = 0; i < size; ++i) {
        data[i] = static_cast<u8>(rng());
    }
}

void element(void* at, const FieldInfo& field, Rng& rng) {
    switch (field.kind) {
    case Kind::nothing:
        break;
    case Kind::text: {
        std::string text(rng.below(12), '\0');
        fill_bytes(reinterpret_cast<u8*>(text.data()), text.size(), rng);
        *static_cast<std::string*>(at) = text;
        break;
    }
    case Kind::data: {
        auto& data = *static_cast<std::vector<u8>*>(at);
        data.resize(rng.below(20));
        fill_bytes(data.data(), data.size(), rng);
        break;
    }
    case Kind::fixed_data:
        fill_bytes(static_cast<u8*>(at), field.count, rng);
        break;
    case Kind::structure:
    case Kind::group:
        randomize(at, *field.type, rng);
        break;
    case Kind::variant: {
        const VariantInfo& info = *field.variant;
        const std::size_t arm = rng.below(info.arms.size());
        element(info.emplace(at, arm), info.arms[arm], rng);
        break;
    }
    case Kind::enumeration: {
        const u64 value = rng.below(field.enumeration->enumerants.size());
        std::memcpy(at, &value, 2);
        break;
    }
    default: {
        const u64 value = integer(rng, field.bits);
        std::memcpy(at, &value, field.bits == 1 ? 1 : field.bits / 8);
    }
    }
}

} // namespace

void randomize(void* value, const StructInfo& info, Rng& rng) {
    for (const FieldInfo& field : info.fields) {
        auto* at = static_cast<std::byte*>(value) + field.offset;
        if (field.shape == Shape::one) {
            element(at, field, rng);
        } else if (field.shape == Shape::array) {
            for (u32 i = 0; i < field.count; ++i) {
                element(at + i * field.element_size, field, rng);
            }
        } else {
            const std::size_t size = rng.below(6);
            field.list->resize(at, size);
            for (std::size_t i = 0; i < size; ++i) {
                element(field.list->at(at, i), field, rng);
            }
        }
    }
}

} // namespace nestor::test
