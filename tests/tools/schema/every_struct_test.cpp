// Properties of every state struct there is: of schema/*.capnp and of the sample. The list is
// generated (engine/state/all.hpp), so a new struct is tested the moment it exists. All of it goes
// through the run-time descriptions, as the typed functions of codec.hpp do.
//
// An older or newer schema is made by leaving one field out of a struct's description: it encodes
// what a version without the field would have written, and reads as such a version would.
#include <gtest/gtest.h>

#include "tools/schema/libcapnp.hpp"

#include <capnp/any.h>
#include <capnp/message.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "engine/state/codec.hpp"
#include "engine/state/info.hpp"
#include "tests/tools/schema/random_state.hpp"
#include "tests/tools/schema/sample.hpp"

namespace nestor::state {
namespace {

constexpr int rounds = 50;

using Value = std::unique_ptr<void, void (*)(void*)>;

class EveryStateStruct : public ::testing::TestWithParam<const StructInfo*> {
protected:
    [[nodiscard]] Value fresh() const { return {info.create(), info.destroy}; }

    Value random() {
        Value value = fresh();
        test::randomize(value.get(), info, rng);
        return value;
    }

    [[nodiscard]] std::vector<std::byte> encode(const Value& value) const {
        return erased::encode(value.get(), info);
    }

    /// The value the bytes say; null, with the reason in `refusal`, where they are refused.
    Value decode(std::span<const std::byte> bytes) {
        Value value = fresh();
        if (const auto done = erased::decode(value.get(), info, bytes); !done) {
            refusal = done.error().message;
            value.reset();
        }
        return value;
    }

    const StructInfo& info = *GetParam();
    test::Rng rng{info.id};
    std::string refusal;
};

template <class... T>
std::vector<const StructInfo*> infos(TypeList<T...>) {
    return {&Meta<T>::info...};
}

std::vector<const StructInfo*> tested() {
    std::vector<const StructInfo*> all = infos(sample_types{});
    all.insert(all.end(), erased::all().begin(), erased::all().end());
    return all;
}

std::string schema_name(const ::testing::TestParamInfo<const StructInfo*>& parameter) {
    std::string name = parameter.param->name;
    std::ranges::replace(name, '.', '_');
    return name;
}

INSTANTIATE_TEST_SUITE_P(Of, EveryStateStruct, ::testing::ValuesIn(tested()), schema_name);

TEST(StateStructs, AreFoundInTheSchemaAndInTheSample) {
    EXPECT_FALSE(erased::all().empty());
    EXPECT_GT(tested().size(), erased::all().size());
}

TEST_P(EveryStateStruct, DecodesToWhatWasEncoded) {
    for (int i = 0; i < rounds; ++i) {
        const Value value = random();
        const Value back = decode(encode(value));
        ASSERT_TRUE(back) << refusal;
        ASSERT_TRUE(info.equal(back.get(), value.get())) << erased::to_json(value.get(), info);
        ASSERT_TRUE(erased::diff(value.get(), back.get(), info).empty());
    }
}

TEST_P(EveryStateStruct, EncodesToTheSameBytesEachTime) {
    for (int i = 0; i < rounds; ++i) {
        const Value value = random();
        const auto bytes = encode(value);
        ASSERT_EQ(encode(value), bytes);
        const Value back = decode(bytes);
        ASSERT_TRUE(back) << refusal;
        ASSERT_EQ(encode(back), bytes);
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

TEST_P(EveryStateStruct, IsCanonicalForLibcapnpToo) {
    for (int i = 0; i < rounds; ++i) {
        const auto bytes = encode(random());
        const auto theirs = canonical_by_libcapnp(bytes);
        // The documented difference: elements of a list of structs are never without size.
        if (theirs.size() >= bytes.size() || !has_list_of_structs(info)) {
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

TEST_P(EveryStateStruct, TakesTheDefaultForAFieldThatOldBytesLack) {
    const Value defaults = fresh();
    for (std::size_t i = 0; i < info.fields.size(); ++i) {
        const Without older(info, i);
        const Value value = random();
        const Value back = decode(erased::encode(value.get(), older.info()));
        ASSERT_TRUE(back) << refusal;
        // Nothing but that field is lost, and the field is as in a fresh value.
        const std::string name = info.fields[i].name;
        const auto lost = erased::diff(value.get(), back.get(), info);
        const auto kept = erased::diff(defaults.get(), back.get(), info);
        if (!name.empty()) {
            EXPECT_EQ(count_below(lost, name), lost.size()) << name;
            EXPECT_EQ(count_below(kept, name), 0u) << name;
        }
        EXPECT_EQ(erased::diff(value.get(), back.get(), older.info()).size(), 0u) << name;
    }
}

TEST_P(EveryStateStruct, RefusesWhatANewerVersionAdded) {
    for (std::size_t i = 0; i < info.fields.size(); ++i) {
        const Without older(info, i);
        for (int round = 0; round < 5; ++round) {
            const Value value = random();
            const auto bytes = encode(value);
            const Value read = fresh();
            const auto done = erased::decode(read.get(), older.info(), bytes);
            const bool same = erased::encode(value.get(), older.info()) == bytes;
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

TEST_P(EveryStateStruct, SurvivesEveryCutAndManyFlips) {
    const auto bytes = encode(random());
    for (std::size_t size = 0; size < bytes.size(); ++size) {
        EXPECT_FALSE(decode(std::span(bytes).first(size))) << size;
    }
    for (int i = 0; i < 2000; ++i) {
        auto flipped = bytes;
        for (u64 flips = 1 + rng.below(3); flips > 0; --flips) {
            const u64 bit = rng.below(flipped.size() * 8);
            flipped[bit / 8] ^= std::byte{1} << bit % 8;
        }
        if (const Value value = decode(flipped)) {
            // Whatever decodes is a value like any other.
            const Value back = decode(encode(value));
            ASSERT_TRUE(back) << refusal;
            ASSERT_TRUE(info.equal(back.get(), value.get()));
        }
    }
}

} // namespace
} // namespace nestor::state
