// Decode of every state struct from arbitrary bytes: a value or an error, and a value encodes and
// decodes to itself.
//
// Bytes 0 and 1 choose the struct, by its id, so that stored inputs keep their meaning when structs
// are added. Byte 2 odd: the rest is the message. Even: eight bytes seed a random value, whose
// encoding the rest edits (two bytes of position, one to XOR), which gets past the first pointers.
#include <cstring>

#include "engine/state/codec.hpp"
#include "engine/state/info.hpp"
#include "src/base/check.hpp"
#include "tests/tools/schema/random_state.hpp"

namespace {

using namespace nestor;
using state::StructInfo;

const StructInfo& choose(u16 key) {
    const StructInfo* best = nullptr;
    for (const StructInfo* info : state::erased::all()) {
        if (best == nullptr ||
            (static_cast<u16>(info->id) ^ key) < (static_cast<u16>(best->id) ^ key)) {
            best = info;
        }
    }
    CHECK(best != nullptr);
    return *best;
}

std::vector<std::byte> edited(const StructInfo& info, std::span<const u8> input) {
    u64 seed = 0;
    std::memcpy(&seed, input.data(), std::min(input.size(), sizeof seed));
    test::Rng rng(seed);
    void* value = info.create();
    test::randomize(value, info, rng);
    auto bytes = state::erased::encode(value, info);
    info.destroy(value);
    for (std::size_t i = sizeof seed; i + 2 < input.size(); i += 3) {
        const std::size_t at = input[i] | std::size_t{input[i + 1]} << 8;
        bytes[at % bytes.size()] ^= std::byte{input[i + 2]};
    }
    return bytes;
}

void decode_one(const StructInfo& info, std::span<const std::byte> bytes) {
    void* value = info.create();
    if (state::erased::decode(value, info, bytes)) {
        const auto again = state::erased::encode(value, info);
        void* copy = info.create();
        CHECK(state::erased::decode(copy, info, again).has_value());
        CHECK(info.equal(value, copy));
        CHECK(state::erased::diff(value, copy, info).empty());
        CHECK(!state::erased::to_json(value, info).empty());
        info.destroy(copy);
    }
    info.destroy(value);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 3) {
        return 0;
    }
    const auto& info = choose(static_cast<u16>(data[0] | data[1] << 8));
    const std::span<const u8> rest(data + 3, size - 3);
    if (data[2] % 2 == 1) {
        decode_one(info, std::as_bytes(rest));
    } else {
        decode_one(info, edited(info, rest));
    }
    return 0;
}
