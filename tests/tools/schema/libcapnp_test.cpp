// Our bytes as libcapnp reads them with the schema files themselves. The generated tables could be
// wrong in the same way for encode and decode, and a round trip would not see it; this does.
#include <gtest/gtest.h>

#include "tools/schema/libcapnp.hpp"

#include <capnp/dynamic.h>
#include <capnp/message.h>
#include <capnp/schema-parser.h>
#include <kj/filesystem.h>

#include <cstring>
#include <filesystem>

#include "engine/state/codec.hpp"
#include "engine/state/walk.hpp"
#include "src/base/types.hpp"
#include "tests/tools/schema/random_state.hpp"
#include "tests/tools/schema/sample.hpp"

namespace nestor::state {
namespace {

using capnp::DynamicList;
using capnp::DynamicStruct;
using capnp::DynamicValue;

std::string dynamic_bytes(capnp::Data::Reader data) {
    return {reinterpret_cast<const char*>(data.begin()), data.size()};
}

class Comparer final {
public:
    void members(const std::string& path, const void* value, const StructInfo& info,
                 DynamicStruct::Reader theirs) {
        for (const FieldInfo& field : info.fields) {
            const void* at = walk::member(value, field);
            const std::string name = field.name;
            if (name.empty()) {
                variant(path, at, *field.variant, theirs);
            } else {
                this->value(path + "." + name, at, field, theirs.get(name));
            }
            ++compared;
        }
    }

    int compared = 0;

private:
    void value(const std::string& path, const void* at, const FieldInfo& field,
               DynamicValue::Reader theirs) {
        if (field.shape == Shape::one) {
            one(path, at, field, theirs);
            return;
        }
        const auto list = theirs.as<DynamicList>();
        const std::size_t size = walk::list_size(at, field);
        if (field.shape == Shape::array && list.size() == 0) {
            return; // all at its default: absent
        }
        ASSERT_EQ(list.size(), size) << path;
        for (unsigned i = 0; i < size; ++i) {
            one(path, walk::element(at, field, i), field, list[i]);
        }
    }

    void one(const std::string& path, const void* at, const FieldInfo& field,
             DynamicValue::Reader theirs) {
        switch (field.kind) {
        case Kind::nothing:
            break;
        case Kind::boolean:
            EXPECT_EQ(walk::load(at, 1), u64{theirs.as<bool>()}) << path;
            break;
        case Kind::unsigned_integer:
            EXPECT_EQ(walk::load(at, field.bits), theirs.as<u64>()) << path;
            break;
        case Kind::signed_integer: {
            const unsigned shift = 64 - field.bits;
            const i64 ours = static_cast<i64>(walk::load(at, field.bits) << shift) >> shift;
            EXPECT_EQ(ours, theirs.as<i64>()) << path;
            break;
        }
        case Kind::enumeration:
            EXPECT_EQ(walk::load(at, 16), theirs.as<capnp::DynamicEnum>().getRaw()) << path;
            break;
        case Kind::text: {
            const auto text = theirs.as<capnp::Text>();
            EXPECT_EQ(*static_cast<const std::string*>(at), std::string(text.begin(), text.size()))
                << path;
            break;
        }
        case Kind::data: {
            const auto& data = *static_cast<const std::vector<u8>*>(at);
            EXPECT_EQ(std::string(data.begin(), data.end()),
                      dynamic_bytes(theirs.as<capnp::Data>()))
                << path;
            break;
        }
        case Kind::fixed_data: {
            const std::string ours(static_cast<const char*>(at), field.count);
            auto data = dynamic_bytes(theirs.as<capnp::Data>());
            data.resize(data.empty() ? field.count : data.size()); // zeroes are absent
            EXPECT_EQ(ours, data) << path;
            break;
        }
        case Kind::structure:
        case Kind::group:
            members(path, at, *field.type, theirs.as<DynamicStruct>());
            break;
        case Kind::variant:
            variant(path, at, *field.variant, theirs.as<DynamicStruct>());
            break;
        }
    }

    void variant(const std::string& path, const void* at, const VariantInfo& info,
                 DynamicStruct::Reader theirs) {
        const FieldInfo& active = info.arms[info.index(at)];
        KJ_IF_MAYBE (field, theirs.which()) {
            ASSERT_EQ(std::string(field->getProto().getName().cStr()), active.name) << path;
        } else {
            FAIL() << path << ": not a union";
        }
        const StructInfo& type = *active.type;
        const void* arm = walk::arm(at, info);
        const auto inner = theirs.get(active.name);
        if (type.fields.size() == 1 && type.fields[0].name[0] == '\0' &&
            type.fields[0].kind != Kind::variant) {
            value(path + "." + active.name, walk::member(arm, type.fields[0]), type.fields[0],
                  inner);
        } else if (!type.fields.empty()) {
            members(path + "." + active.name, arm, type, inner.as<DynamicStruct>());
        }
    }
};

class Libcapnp : public ::testing::Test {
protected:
    void compare_file(const std::string& path) {
        const auto disk = kj::newDiskFilesystem();
        const auto& root = disk->getRoot();
        const auto includes = root.openSubdir(kj::Path(nullptr).evalNative(CAPNP_INCLUDES));
        const kj::ReadableDirectory* const import_path[] = {includes.get()};
        const capnp::SchemaParser parser;
        compare_nested(parser.parseFromDirectory(root, kj::Path(nullptr).evalNative(path),
                                                 kj::arrayPtr(import_path, 1)));
    }

    int structs = 0;

private:
    void compare_nested(const capnp::ParsedSchema& scope) {
        for (auto nested : scope.getAllNested()) {
            if (nested.getProto().isStruct()) {
                compare_struct(nested);
                compare_nested(nested);
            }
        }
    }

    void compare_struct(capnp::ParsedSchema schema) {
        const StructInfo* info = find(schema.getProto().getId());
        ASSERT_NE(info, nullptr) << schema.getProto().getDisplayName().cStr();
        ++structs;
        test::Rng rng(7);
        for (int i = 0; i < 20; ++i) {
            void* value = info->create();
            if (i > 0) {
                test::randomize(value, *info, rng);
            }
            compare_value(value, *info, schema.asStruct());
            info->destroy(value);
        }
    }

    static void compare_value(const void* value, const StructInfo& info,
                              capnp::StructSchema schema) {
        const auto bytes = erased::encode(value, info);
        std::vector<capnp::word> words(bytes.size() / sizeof(capnp::word));
        std::memcpy(words.data(), bytes.data(), bytes.size());
        const kj::ArrayPtr<const capnp::word> segments[] = {{words.data(), words.size()}};
        capnp::SegmentArrayMessageReader message(segments);
        Comparer comparer;
        comparer.members(info.name, value, info, message.getRoot<DynamicStruct>(schema));
        EXPECT_EQ(comparer.compared == 0, info.fields.empty());
    }

    template <class... T>
    static const StructInfo* find_in(TypeList<T...>, u64 id) {
        const StructInfo* found = nullptr;
        ((type_id<T>() == id ? void(found = &Meta<T>::info) : void()), ...);
        return found;
    }

    static const StructInfo* find(u64 id) {
        const StructInfo* found = erased::find(id);
        return found != nullptr ? found : find_in(sample_types{}, id);
    }
};

TEST_F(Libcapnp, ReadsTheSameValuesFromEveryStateStruct) {
    for (const auto& entry : std::filesystem::directory_iterator(NESTOR_ROOT "/schema")) {
        if (entry.path().extension() == ".capnp") {
            compare_file(entry.path());
        }
    }
    EXPECT_GT(structs, 0) << "discovery found nothing";
    EXPECT_EQ(static_cast<std::size_t>(structs), erased::all().size())
        << "schema/meson.build does not list every file of schema/";
}

TEST_F(Libcapnp, ReadsTheSameValuesFromTheSample) {
    compare_file(NESTOR_ROOT "/tests/tools/schema/sample.capnp");
    EXPECT_GT(structs, 10);
}

} // namespace
} // namespace nestor::state
