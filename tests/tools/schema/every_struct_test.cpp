// Properties of every state struct there is: of schema/*.capnp and of the sample. The list of types
// is generated (engine/state/all.hpp), so a new struct is tested the moment it exists.
//
// An older or newer schema is made by leaving one field out of a struct's description: it encodes
// what a version without the field would have written, and reads as such a version would.
#include <gtest/gtest.h>

#include "tools/schema/libcapnp.hpp"

#include <capnp/any.h>
#include <capnp/message.h>

#include <algorithm>
#include <cstring>

#include "engine/state/all.hpp"
#include "engine/state/codec.hpp"
#include "engine/state/info.hpp"
#include "tests/tools/schema/random_state.hpp"
#include "tests/tools/schema/sample.hpp"

namespace nestor::state {
namespace {

constexpr int rounds = 50;

template <class List>
struct GoogleTypes;
template <class... T>
struct GoogleTypes<TypeList<T...>> {
    using type = ::testing::Types<T...>;
    static constexpr std::size_t size = sizeof...(T);
};

using Tested = decltype(detail::join(AllTypes{}, sample_types{}));
static_assert(GoogleTypes<cpu_types>::size > 0 && GoogleTypes<sample_types>::size > 0,
              "discovery found nothing");

struct SchemaName {
    template <class T>
    static std::string GetName(int) {
        std::string name(type_name<T>());
        std::ranges::replace(name, '.', '_');
        return name;
    }
};

template <class T>
class EveryStateStruct : public ::testing::Test {
protected:
    T random() {
        T value;
        test::randomize(value, rng);
        return value;
    }

    test::Rng rng{type_id<T>()};
};
TYPED_TEST_SUITE(EveryStateStruct, typename GoogleTypes<Tested>::type, SchemaName);

TYPED_TEST(EveryStateStruct, DecodesToWhatWasEncoded) {
    for (int i = 0; i < rounds; ++i) {
        const TypeParam value = this->random();
        const auto back = decode<TypeParam>(encode(value));
        ASSERT_TRUE(back) << back.error().message;
        ASSERT_EQ(*back, value) << to_json(value);
        ASSERT_TRUE(diff(value, *back).empty());
        ASSERT_EQ(digest(value), digest(*back));
    }
}

TYPED_TEST(EveryStateStruct, EncodesToTheSameBytesEachTime) {
    for (int i = 0; i < rounds; ++i) {
        const TypeParam value = this->random();
        const auto bytes = encode(value);
        ASSERT_EQ(encode(value), bytes);
        ASSERT_EQ(encode(decode<TypeParam>(bytes).value()), bytes);
    }
}

/// What libcapnp makes of our bytes when it writes them canonically itself.
std::vector<std::byte> canonical_by_libcapnp(std::span<const std::byte> bytes) {
    std::vector<capnp::word> words(bytes.size() / sizeof(capnp::word));
    std::memcpy(words.data(), bytes.data(), bytes.size());
    const kj::ArrayPtr<const capnp::word> segment(words.data(), words.size());
    const kj::ArrayPtr<const capnp::word> segments[] = {segment};
    capnp::SegmentArrayMessageReader message(segments);
    const auto canonical = message.getRoot<capnp::AnyStruct>().canonicalize();
    const auto* out = reinterpret_cast<const std::byte*>(canonical.begin());
    return {out, out + canonical.size() * sizeof(capnp::word)};
}

bool has_list_of_structs(const StructInfo& info) {
    return std::ranges::any_of(info.fields, [](const FieldInfo& field) {
        if (field.kind == Kind::structure && field.shape == Shape::list) {
            return true;
        }
        if (field.variant != nullptr) {
            return std::ranges::any_of(field.variant->arms, [](const FieldInfo& arm) {
                return has_list_of_structs(*arm.type);
            });
        }
        return field.type != nullptr && has_list_of_structs(*field.type);
    });
}

TYPED_TEST(EveryStateStruct, IsCanonicalForLibcapnpToo) {
    for (int i = 0; i < rounds; ++i) {
        const auto bytes = encode(this->random());
        const auto theirs = canonical_by_libcapnp(bytes);
        // The documented difference: elements of a list of structs are never without size.
        if (theirs.size() >= bytes.size() || !has_list_of_structs(Meta<TypeParam>::info)) {
            ASSERT_EQ(bytes, theirs);
        }
    }
}

/// The struct's description without one of its fields.
class Without final {
public:
    Without(const StructInfo& info, std::size_t index)
        : fields_(info.fields.begin(), info.fields.end()), info_(info) {
        fields_.erase(fields_.begin() + static_cast<std::ptrdiff_t>(index));
        info_.fields = fields_;
    }
    Without(const Without&) = delete;
    Without& operator=(const Without&) = delete;

    [[nodiscard]] const StructInfo& info() const { return info_; }

private:
    std::vector<FieldInfo> fields_;
    StructInfo info_;
};

/// Differences at or below the field.
std::size_t count_below(const std::vector<Difference>& differences, std::string_view name) {
    return static_cast<std::size_t>(std::ranges::count_if(differences, [&](const Difference& d) {
        return d.path.starts_with(name) &&
               (d.path.size() == name.size() || d.path[name.size()] == '.' ||
                d.path[name.size()] == '[');
    }));
}

TYPED_TEST(EveryStateStruct, TakesTheDefaultForAFieldThatOldBytesLack) {
    const StructInfo& info = Meta<TypeParam>::info;
    for (std::size_t i = 0; i < info.fields.size(); ++i) {
        const Without older(info, i);
        const TypeParam value = this->random();
        const auto back = decode<TypeParam>(erased::encode(&value, older.info()));
        ASSERT_TRUE(back) << back.error().message;
        // Nothing but that field is lost, and the field is as in a fresh value.
        TypeParam fresh;
        const std::string name = info.fields[i].name;
        const auto lost = diff(value, *back);
        const auto kept = diff(fresh, *back);
        if (!name.empty()) {
            EXPECT_EQ(count_below(lost, name), lost.size()) << name;
            EXPECT_EQ(count_below(kept, name), 0u) << name;
        }
        EXPECT_EQ(erased::diff(&value, &*back, older.info()).size(), 0u) << name;
    }
}

TYPED_TEST(EveryStateStruct, RefusesWhatANewerVersionAdded) {
    const StructInfo& info = Meta<TypeParam>::info;
    for (std::size_t i = 0; i < info.fields.size(); ++i) {
        const Without older(info, i);
        for (int round = 0; round < 5; ++round) {
            const TypeParam value = this->random();
            const auto bytes = encode(value);
            TypeParam read;
            const auto done = erased::decode(&read, older.info(), bytes);
            const bool same = erased::encode(&value, older.info()) == bytes;
            ASSERT_EQ(done.has_value(), same) << info.fields[i].name;
            if (!done) {
                EXPECT_EQ(static_cast<int>(done.error().code),
                          static_cast<int>(ErrorCode::incompatible));
                EXPECT_NE(done.error().message.find("written by a newer version"),
                          std::string::npos);
            }
        }
    }
}

TYPED_TEST(EveryStateStruct, SurvivesEveryCutAndManyFlips) {
    const auto bytes = encode(this->random());
    for (std::size_t size = 0; size < bytes.size(); ++size) {
        EXPECT_FALSE(decode<TypeParam>(std::span(bytes).first(size)).has_value()) << size;
    }
    for (int i = 0; i < 2000; ++i) {
        auto flipped = bytes;
        for (u64 flips = 1 + this->rng.below(3); flips > 0; --flips) {
            const u64 bit = this->rng.below(flipped.size() * 8);
            flipped[bit / 8] ^= std::byte{1} << bit % 8;
        }
        if (const auto value = decode<TypeParam>(flipped)) {
            // Whatever decodes is a value like any other.
            ASSERT_EQ(decode<TypeParam>(encode(*value)).value(), *value);
        }
    }
}

} // namespace
} // namespace nestor::state
