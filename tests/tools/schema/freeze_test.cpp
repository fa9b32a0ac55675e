// The freeze check finds every way to break an old snapshot, and lets schemas grow.
#include "tests/tools/schema/plugin_fixture.hpp"

namespace nestor::schema {
namespace {

constexpr const char* released = "enum Mode { off @0; on @1; }\n"
                                 "struct S { a @0 :UInt32 = 5; b @1 :UInt16; c @2 :Mode;"
                                 "  d @3 :List(UInt64) $A.fixed(4); e @4 :Text;"
                                 "  union { f @5 :UInt8; g @6 :UInt8; } }\n";

class SchemaFreeze : public test::PluginFixture {
protected:
    /// Freezes the released text as 1.0.
    void SetUp() override {
        ASSERT_EQ(compile(released), "");
        const auto [status, said] = shell(
            "mkdir -p build/engine/state frozen && touch frozen/releases && "
            "cp x.layout build/engine/state && " NESTOR_FREEZE " 1.0 --build build --into frozen");
        ASSERT_EQ(status, 0) << said;
    }

    /// The check's answer to the released text with one replacement.
    std::pair<int, std::string> check(const std::string& from, const std::string& to) {
        std::string text = released;
        const auto at = text.find(from);
        EXPECT_NE(at, std::string::npos);
        EXPECT_EQ(compile(text.replace(at, from.size(), to)), "");
        return shell(NESTOR_FREEZE " --check frozen x.layout");
    }

    void expect_broken(const std::string& from, const std::string& to, const std::string& says) {
        const auto [status, said] = check(from, to);
        EXPECT_NE(status, 0) << said;
        EXPECT_NE(said.find(says), std::string::npos) << said;
    }
};

TEST_F(SchemaFreeze, AcceptsTheSameSchema) {
    const auto [status, said] = check("off", "off");
    EXPECT_EQ(status, 0) << said;
    EXPECT_NE(said.find("promises kept"), std::string::npos) << said;
}

TEST_F(SchemaFreeze, AcceptsAppendedFields) {
    EXPECT_EQ(check("e @4 :Text;", "e @4 :Text; h @7 :UInt64;").first, 0);
}

TEST_F(SchemaFreeze, AcceptsAppendedEnumerantsAndUnionMembers) {
    EXPECT_EQ(check("on @1;", "on @1; third @2;").first, 0);
    EXPECT_EQ(check("g @6 :UInt8;", "g @6 :UInt8; h @7 :UInt8;").first, 0);
}

TEST_F(SchemaFreeze, FindsARemovedField) {
    expect_broken("union { f @5 :UInt8; g @6 :UInt8; }", "", "field SValue g @6");
}

TEST_F(SchemaFreeze, FindsRenumberedFields) {
    expect_broken("a @0 :UInt32 = 5; b @1 :UInt16;", "b @0 :UInt16; a @1 :UInt32 = 5;",
                  "now: field S b @0");
}

TEST_F(SchemaFreeze, FindsARetypedField) {
    expect_broken("b @1 :UInt16;", "b @1 :Int16;", "now: field S b @1 : signed_integer16");
}

TEST_F(SchemaFreeze, FindsAnotherDefault) {
    expect_broken("= 5", "= 6", "now: field S a @0 : unsigned_integer32 at bit 0 default 0x6");
}

TEST_F(SchemaFreeze, FindsAnotherFixedLength) {
    expect_broken("fixed(4)", "fixed(5)", "now: field S d @3 : unsigned_integer64 x5");
}

TEST_F(SchemaFreeze, FindsARenamedField) {
    expect_broken("e @4", "name @4", "was: field S e @4 : text at pointer 1");
}

TEST_F(SchemaFreeze, FindsRenumberedEnumerants) {
    expect_broken("off @0; on @1;", "on @0; off @1;", "now: enumerant Mode off = 1");
}

TEST_F(SchemaFreeze, FindsARemovedStruct) { expect_broken("struct S", "struct T", "now: removed"); }

TEST_F(SchemaFreeze, RefusesToFreezeAReleaseTwice) {
    EXPECT_NE(shell(NESTOR_FREEZE " 1.0 --build build --into frozen").first, 0);
}

} // namespace
} // namespace nestor::schema
